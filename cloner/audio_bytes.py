"""Audio files in memory: encoded from samples, and decoded.

WAV files, which a worker writes by the hundred a second, are encoded by numpy: libsndfile takes about five times as
long. Their bytes are the same. Other formats are libsndfile's.

libsndfile reads and writes a descriptor. With a Python file object it would call back into Python, where a signal
handler may run: the exception by which Celery ends a process would be lost in the callback, the process would go on,
and the file would be cut short.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from cloner.audio import Audio, Samples16

MOST = np.float32(1 - 2**-24)
"""The largest float32 below 1: the largest 16-bit sample."""

BLOCK_SAMPLES = 2**16
"""Samples that libsndfile is given at once. Its Vorbis encoder takes memory for them all from the stack: 60 s end the
process."""

WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def encode_audio(audio: Audio | Samples16, sample_rate: int, file_format: str) -> bytes:
    """Mono samples ``[samples]`` in -1..1, or of 16 bits, as a 16-bit file of one of libsndfile's formats, such as
    "WAV".

    Samples beyond are clipped. Raises `OSError`, `soundfile.SoundFileError`.
    """
    if file_format == "WAV":
        return _wav(audio, sample_rate)
    with _file_in_memory() as file:
        with soundfile.SoundFile(file, "w", sample_rate, channels=1, format=file_format, closefd=False) as sound:
            for start in range(0, len(audio), BLOCK_SAMPLES):
                sound.write(audio[start : start + BLOCK_SAMPLES])
        return os.pread(file, os.fstat(file).st_size, 0)


def to_16_bits(audio: Audio | Samples16) -> Samples16:
    """The samples that libsndfile writes: each is rounded to 32 bits, of which the upper 16 remain.

    Not a number becomes the least sample, as with libsndfile on x86-64.
    """
    if audio.dtype == np.int16:
        return audio.astype(np.int16, copy=False)
    scaled = np.fmax(audio, np.float32(-1))
    np.minimum(scaled, MOST, out=scaled)
    scaled *= np.float32(2**31)
    np.rint(scaled, out=scaled)
    return scaled.astype("<i4").view("<i2")[1::2]


def _wav(audio: Audio | Samples16, sample_rate: int) -> bytes:
    """The bytes that libsndfile writes."""
    samples = np.ascontiguousarray(to_16_bits(audio)).data.cast("B")
    channels, sample_bytes = 1, 2
    header = WAV_HEADER.pack(
        b"RIFF",
        WAV_HEADER.size - 8 + len(samples),
        b"WAVE",
        b"fmt ",
        16,  # bytes of the format, which follows: PCM is 1
        1,
        channels,
        sample_rate,
        sample_rate * channels * sample_bytes,
        channels * sample_bytes,
        8 * sample_bytes,
        b"data",
        len(samples),
    )
    return header + samples


def decode_audio(data: bytes, check: Callable[[soundfile.SoundFile], None]) -> Audio:
    """The samples ``[samples]``, or ``[samples, channels]``, of a file.

    `check` gets the file before memory is allocated for its samples: its header is read. Raises what `check` raises,
    `OSError`, `soundfile.SoundFileError`.
    """
    with _file_in_memory() as file:
        with open(file, "wb", closefd=False) as whole:
            whole.write(data)
        os.lseek(file, 0, os.SEEK_SET)
        with soundfile.SoundFile(file, closefd=False) as sound:
            check(sound)
            audio: Audio = sound.read(dtype="float32")
            return audio


@contextmanager
def _file_in_memory() -> Iterator[int]:
    """A descriptor of an empty file, which is gone when it is closed; where there is no Linux, on the disk."""
    if sys.platform == "linux":
        file = os.memfd_create("audio")
        try:
            yield file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryFile() as on_disk:
            yield on_disk.fileno()
