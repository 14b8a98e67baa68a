"""Audio files in memory: what is encoded is decoded again, and no Python code runs inside libsndfile."""

from __future__ import annotations

import sys
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
    samples, rate = decode_audio(encode_audio(SOUND, 44_100, file_format), len(SOUND))
    assert rate == 44_100
    assert samples.shape == SOUND.shape
    assert np.abs(samples - SOUND).max() < (0.1 if file_format == "OGG" else 1e-4)


def test_no_more_samples_are_decoded_than_wanted() -> None:
    samples, _ = decode_audio(encode_audio(SOUND, 44_100, "FLAC"), 1000)
    assert samples.shape == (1000,)


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG"])
def test_libsndfile_calls_no_python(file_format: str) -> None:
    """A signal handler that raises would be ignored there: a stopped worker would write half a file, and go on."""
    with _python_calls() as called:
        decode_audio(encode_audio(SOUND, 44_100, file_format), len(SOUND))
    assert "encode_audio" in called
    assert [name for name in called if name.startswith("vio_")] == []


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no audio at all" * 100])
def test_what_is_no_audio_is_refused(data: bytes) -> None:
    with pytest.raises(soundfile.SoundFileError):
        decode_audio(data, 10)
