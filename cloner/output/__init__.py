"""What the output folder holds: audio files, the record of finished segments, journals, the folder's lock."""
