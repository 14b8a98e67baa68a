"""Audio files in memory: encoded from samples, and decoded.

libsndfile reads and writes a descriptor. With a Python file object it would call back into Python, where a signal
handler may run: the exception by which Celery ends a process would be lost in the callback, the process would go on,
and the file would be cut short.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import soundfile

from cloner.audio import Audio


def encode_audio(audio: Audio, sample_rate: int, file_format: str) -> bytes:
    """Mono samples ``[samples]`` in -1..1 as a 16-bit file of one of libsndfile's formats, such as "WAV".

    Raises `OSError`, `soundfile.SoundFileError`.
    """
    with _file_in_memory() as file:
        soundfile.write(file, audio, sample_rate, format=file_format, closefd=False)
        return os.pread(file, os.fstat(file).st_size, 0)


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
