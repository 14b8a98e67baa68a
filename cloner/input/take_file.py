"""A take in a file: any format that libsndfile reads, any rate, any number of channels."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile as sf

from cloner.audio import Audio
from cloner.audio_bytes import read_mono
from cloner.input.reference_files import MAX_CHANNELS, SAMPLE_RATES

MAX_SECONDS = 3600
"""The longest take."""

MAX_SAMPLES = MAX_SECONDS * 48_000
"""Most samples of a take, 0.7 GB; to measure it takes three times as much. A file of a few MB may have more, at a high
rate and without a sound."""


UNKNOWN_SIZE = 0x7FFF0000
"""What a program that writes WAV into a pipe gives for the size, or more: it cannot go back to correct it."""

HEADER_SLACK = 8
"""Bytes that a WAV file may be short of: some programs count those before the size, too."""


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
        if (whole := _wav_bytes(path)) > size + HEADER_SLACK:
            raise UnreadableTake(f"it cannot be read in full: it has {size} bytes of the {whole} that its header says")
        with sf.SoundFile(os.fsencode(path)) as sound:
            _check(sound)
            limit = min(MAX_SECONDS * sound.samplerate, MAX_SAMPLES)
            samples = read_mono(sound, limit + 1)
            if not len(samples):
                raise UnreadableTake("it has no samples")
            if len(samples) > limit:
                raise UnreadableTake(f"it is longer than {limit // sound.samplerate} s, the most at its sample rate")
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


def _wav_bytes(path: Path) -> int:
    """The bytes of a WAV file by its header; 0 if it does not say, or is none. libsndfile reads one that is cut as if
    it were whole. Raises `OSError`."""
    with path.open("rb") as file:
        head = file.read(12)
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if head[:4] == b"RIFF" and head[8:] == b"WAVE" and size < UNKNOWN_SIZE else 0


def _check(sound: sf.SoundFile) -> None:
    if sound.channels > MAX_CHANNELS:
        raise UnreadableTake(f"it has {sound.channels} channels, and {MAX_CHANNELS} is the most")
    if sound.samplerate not in SAMPLE_RATES:
        least, most = SAMPLE_RATES[0], SAMPLE_RATES[-1]
        raise UnreadableTake(f"it has {sound.samplerate} samples a second, and {least} to {most} can be used")
