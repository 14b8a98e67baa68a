"""Audio files in memory: what is encoded is decoded again, and no Python code runs inside libsndfile."""

from __future__ import annotations

import io
import platform
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from cloner.audio import sample_rate
from cloner.audio_bytes import decode_audio, encode_audio, to_16_bits
from cloner.batch import AudioFormat, AudioOptions

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


@pytest.mark.parametrize("file_format", AudioFormat)
def test_what_was_encoded_is_decoded(file_format: AudioFormat) -> None:
    headers = []
    rate = rate_of(file_format)
    samples = decode_audio(
        encode_audio(SOUND, rate, file_format), lambda file: headers.append((file.samplerate, file.channels))
    )
    assert headers == [(rate, 1)]
    assert samples.shape == SOUND.shape
    if file_format in {AudioFormat.WAV, AudioFormat.FLAC}:
        assert np.abs(samples - SOUND).max() < 1e-4
    else:
        assert np.std(samples) == pytest.approx(np.std(SOUND), rel=0.05)


def rate_of(file_format: AudioFormat) -> int:
    return sample_rate(AudioOptions(), file_format)


STEPS = (np.arange(-(2**16), 2**16) / 2**16).astype(np.float32)
"""Every sample of 16 bits, and the middle between each and the next."""

BITS = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint32).view(np.float32)
"""Numbers of every size."""


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(SOUND, id="a tone"),
        pytest.param(SOUND[:0], id="nothing"),
        pytest.param(SOUND[1:2], id="one sample"),
        pytest.param(SOUND[::3], id="not contiguous"),
        pytest.param(STEPS, id="every sample"),
        pytest.param(np.nextafter(STEPS, np.float32(2)), id="just above every sample"),
        pytest.param(np.nextafter(STEPS, np.float32(-2)), id="just below every sample"),
        pytest.param(np.array([1, -1, 1.5, -1.5, 3e38, -3e38, np.inf, -np.inf], dtype=np.float32), id="clipped"),
        pytest.param(np.array([0, -0.0, 1e-12, -1e-12, 1e-45, -1e-45], dtype=np.float32), id="nearly nothing"),
        pytest.param(BITS[~np.isnan(BITS)], id="every size"),
    ],
)
def test_a_wav_file_has_the_bytes_that_libsndfile_writes(audio: NDArray[np.float32]) -> None:
    assert encode_audio(audio, 44_100, AudioFormat.WAV) == _by_libsndfile(audio)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="libsndfile leaves it to the processor")
def test_what_is_not_a_number_becomes_what_libsndfile_makes_of_it() -> None:
    audio = np.array([np.nan, 0.5, -np.nan], dtype=np.float32)
    assert encode_audio(audio, 44_100, AudioFormat.WAV) == _by_libsndfile(audio)


def _by_libsndfile(audio: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, 44_100, format="WAV")
    return file.getvalue()


def test_a_file_whose_header_is_refused_is_not_decoded() -> None:
    def refuse(file: soundfile.SoundFile) -> None:
        assert file.tell() == 0
        raise ValueError(f"{file.frames} frames")

    data = encode_audio(SOUND, 44_100, AudioFormat.FLAC)
    tracemalloc.start()
    with pytest.raises(ValueError, match="44100 frames"):
        decode_audio(data, refuse)
    assert tracemalloc.get_traced_memory()[1] < SOUND.nbytes
    tracemalloc.stop()


def accept(_file: soundfile.SoundFile) -> None:
    pass


@pytest.mark.parametrize("file_format", AudioFormat)
def test_libsndfile_calls_no_python(file_format: AudioFormat) -> None:
    """A signal handler that raises would be ignored there: a stopped worker would write half a file, and go on."""
    with _python_calls() as called:
        decode_audio(encode_audio(SOUND, rate_of(file_format), file_format), accept)
    assert "encode_audio" in called
    assert [name for name in called if name.startswith("vio_")] == []


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no audio at all" * 100])
def test_what_is_no_audio_is_refused(data: bytes) -> None:
    with pytest.raises(soundfile.SoundFileError):
        decode_audio(data, accept)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", AudioFormat)
def test_a_long_recording_is_encoded(file_format: AudioFormat) -> None:
    long = np.tile(SOUND, 90)
    assert len(decode_audio(encode_audio(long, rate_of(file_format), file_format), lambda _sound: None)) == len(long)


@pytest.mark.parametrize("file_format", [AudioFormat.WAV, AudioFormat.FLAC])
def test_samples_of_16_bits_are_written_as_they_are(file_format: AudioFormat) -> None:
    samples = np.arange(-(2**15), 2**15, 7, dtype=np.int16)
    decoded = decode_audio(encode_audio(samples, 44_100, file_format), lambda _sound: None)
    assert np.array_equal(np.round(decoded * 2**15), samples)


def test_samples_of_16_bits_hold_on_to_no_more_memory_than_their_own() -> None:
    samples = to_16_bits(np.linspace(-1, 1, 1000, dtype=np.float32))
    assert samples.base is None
    assert samples.nbytes == 2000
