"""Audio files in memory: what is encoded is decoded again, and no Python code runs inside libsndfile."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import pytest
import soundfile

from cloner.audio_bytes import decode_audio, encode_audio

SOUND = (0.5 * np.sin(np.arange(44_100) / 20)).astype(np.float32)
"""A second of a tone, longer than one block of libsndfile."""


@contextmanager
def _python_calls() -> Iterator[list[str]]:
    """Names of the Python functions that are called inside it, those that C code calls included."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG"])
def test_what_was_encoded_is_decoded(file_format: str) -> None:
    headers = []
    samples = decode_audio(
        encode_audio(SOUND, 44_100, file_format), lambda file: headers.append((file.samplerate, file.channels))
    )
    assert headers == [(44_100, 1)]
    assert samples.shape == SOUND.shape
    assert np.abs(samples - SOUND).max() < (0.1 if file_format == "OGG" else 1e-4)


def test_a_file_whose_header_is_refused_is_not_decoded() -> None:
    def refuse(file: soundfile.SoundFile) -> None:
        assert file.tell() == 0
        raise ValueError(f"{file.frames} frames")

    data = encode_audio(SOUND, 44_100, "FLAC")
    tracemalloc.start()
    with pytest.raises(ValueError, match="44100 frames"):
        decode_audio(data, refuse)
    assert tracemalloc.get_traced_memory()[1] < SOUND.nbytes
    tracemalloc.stop()


def accept(_file: soundfile.SoundFile) -> None:
    pass


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG"])
def test_libsndfile_calls_no_python(file_format: str) -> None:
    """A signal handler that raises would be ignored there: a stopped worker would write half a file, and go on."""
    with _python_calls() as called:
        decode_audio(encode_audio(SOUND, 44_100, file_format), accept)
    assert "encode_audio" in called
    assert [name for name in called if name.startswith("vio_")] == []


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no audio at all" * 100])
def test_what_is_no_audio_is_refused(data: bytes) -> None:
    with pytest.raises(soundfile.SoundFileError):
        decode_audio(data, accept)
