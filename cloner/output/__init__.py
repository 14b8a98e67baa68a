"""The output folder: audio files, the record of finished segments, journals, the folder's lock."""
