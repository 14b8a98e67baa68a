"""A take in a file: any format that libsndfile reads, any rate, any number of channels."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile as sf

from cloner.audio import Audio
from cloner.audio_bytes import read_mono
from cloner.input.cut_files import counts_frames, missing_end
from cloner.input.reference_files import MAX_CHANNELS, SAMPLE_RATES

MAX_SECONDS = 3600
"""The longest take."""

MAX_SAMPLES = MAX_SECONDS * 48_000
"""Most samples of a take, 0.7 GB; to measure it takes three times as much. A file of a few MB may have more, at a high
rate and without a sound."""


class UnreadableTake(Exception):
    """The file cannot be used as a take; the message says why."""


def read_take(path: Path) -> tuple[Audio, int]:
    """The samples ``[samples]``, the mean of the channels, and their rate in Hz.

    Raises `FileNotFoundError`, `UnreadableTake`.
    """
    try:
        if path.exists() and not path.is_file():
            raise UnreadableTake("it is not a file")
        size = path.stat().st_size  # libsndfile does not say whether a file is missing
        if not size:
            raise UnreadableTake("it is empty")
        if cut := missing_end(path, size):
            raise UnreadableTake(f"it cannot be read in full: {cut}")
        with sf.SoundFile(os.fsencode(path)) as sound:
            _check(sound)
            limit = min(MAX_SECONDS * sound.samplerate, MAX_SAMPLES)
            samples = read_mono(sound, limit + 1)
            if not len(samples):
                raise UnreadableTake("it has no samples")
            if len(samples) > limit:
                raise UnreadableTake(f"it is longer than {limit // sound.samplerate} s, the most at its sample rate")
            if sound.format == "MP3" and len(samples) < sound.frames and counts_frames(path):
                counts = f"{len(samples)} samples of the {sound.frames} that its header says"
                raise UnreadableTake(f"it cannot be read in full: it has {counts}")
            return samples, sound.samplerate
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableTake(f"it cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise UnreadableTake("it needs more memory than there is") from error
    except (sf.SoundFileError, TypeError) as error:  # TypeError: a name in .raw, which has no header to read
        reason = error.error_string if isinstance(error, sf.LibsndfileError) else "no known format"
        raise UnreadableTake(f"it cannot be read as audio ({reason})") from error


def _check(sound: sf.SoundFile) -> None:
    if sound.channels > MAX_CHANNELS:
        raise UnreadableTake(f"it has {sound.channels} channels, and {MAX_CHANNELS} is the most")
    if sound.samplerate not in SAMPLE_RATES:
        least, most = SAMPLE_RATES[0], SAMPLE_RATES[-1]
        raise UnreadableTake(f"it has {sound.samplerate} samples a second, and {least} to {most} can be used")
