"""Reading the files of a reference: codes, recordings and transcripts. All that is wrong with one is `BadReference`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from cloner.audio import SAMPLE_RATE, Audio, Codes, check_recording
from cloner.audio_bytes import read_mono
from cloner.batch import CODEBOOK_SIZES
from cloner.errors import BadReference
from cloner.input import ffmpeg
from cloner.protocol.references import MAX_FRAMES, MAX_SECONDS, parse_codes
from cloner.validation import MAX_TEXT, leads_out, prose_flaw

MIN_SECONDS = 0.5
"""The shortest recording."""

SILENCE_RMS = 1e-3
"""RMS below which a recording counts as silent: -60 dB of full scale."""

SAMPLE_RATES = range(1_000, 768_001)
"""Accepted sample rates of a recording, Hz."""

MAX_CHANNELS = 8
"""Most channels of a recording: those of 7.1 surround sound, and of FLAC."""

_MAX_CODES_BYTES = 2**16 + len(CODEBOOK_SIZES) * MAX_FRAMES * 8
"""The largest ``.npy`` of codes: its header, and `MAX_FRAMES` frames of 8-byte integers."""

_MAX_TRANSCRIPT_BYTES = 4 * MAX_TEXT
"""The largest transcript: UTF-8 takes at most four bytes a character."""


@dataclass(frozen=True)
class Recording:
    """What is used of a recording: at most its first `MAX_SECONDS`, as mono ``[samples]`` in -1..1 at its own rate."""

    samples: Audio
    rate: int
    whole_s: float
    """Its whole length by its header, seconds; of one that ffmpeg decodes, at most `ffmpeg.SECONDS`."""


def outside(path: Path, roots: Sequence[Path]) -> str | None:
    """What is wrong with a file's place, or None: all links followed, it must be in one of the `roots`."""
    real = leads_out(path, roots)
    if real is None:
        return None
    leads = "lies" if real == str(path) else f"leads to {real!r},"
    return f"{str(path)!r} {leads} outside of the batch's folder, and CLONER_REFERENCES_DIR is no folder that holds it"


def read_codes(path: Path) -> Codes:
    """The codes ``[codebooks, frames]`` in a file. Reads at most `_MAX_CODES_BYTES`. Raises `BadReference`."""
    with _reading(path), path.open("rb") as file:
        # A limit, because the file may have any size, whatever its header says.
        return parse_codes(io.BytesIO(file.read(_MAX_CODES_BYTES)))


def read_transcript(path: Path) -> str:
    """The transcript in a file. Raises `BadReference`."""
    with _reading(path):
        size = path.stat().st_size
        if size > _MAX_TRANSCRIPT_BYTES:
            raise BadReference(f"the transcript has {size} bytes, and {_MAX_TRANSCRIPT_BYTES} is the most")
        try:
            text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").strip()
        except UnicodeDecodeError as error:
            raise BadReference("the transcript is not UTF-8") from error
        if flaw := prose_flaw(text):
            raise BadReference(f"the transcript {flaw}")
        return text


def recording_seconds(path: Path) -> float:
    """The recording's length, seconds, as `Recording` has it. Raises `BadReference`."""
    if path.suffix.lower() in ffmpeg.DEMUXERS:
        return read_recording(path).whole_s
    with _reading(path), _opened(path) as sound:
        seconds: float = sound.frames / sound.samplerate
        _check_length(seconds)
        return seconds


def read_recording(path: Path) -> Recording:
    """Decode and check a recording. Raises `BadReference`."""
    with _reading(path):
        if demuxer := ffmpeg.DEMUXERS.get(path.suffix.lower()):
            samples = ffmpeg.decode(path, demuxer)
            whole_s = samples.size / SAMPLE_RATE
            return Recording(_checked(samples[: MAX_SECONDS * SAMPLE_RATE], SAMPLE_RATE), SAMPLE_RATE, whole_s)
        return _decoded(path)


def _opened(path: Path) -> sf.SoundFile:
    """A file that libsndfile reads. Raises `BadReference` if it is empty, `OSError`, `soundfile.SoundFileError`."""
    if not path.stat().st_size:
        raise BadReference("it is empty")
    return sf.SoundFile(os.fsencode(path))


def _decoded(path: Path) -> Recording:
    """A recording that libsndfile reads."""
    with _opened(path) as sound:
        rate = sound.samplerate
        if sound.channels > MAX_CHANNELS:
            what = f"the recording has {sound.channels} channels, and {MAX_CHANNELS} is the most"
            raise BadReference(f"{what}: mix it down to one")
        if rate not in SAMPLE_RATES:
            least, most = SAMPLE_RATES[0], SAMPLE_RATES[-1]
            raise BadReference(f"the recording has {rate} samples a second, and {least} to {most} can be used")
        return Recording(_checked(read_mono(sound, MAX_SECONDS * rate), rate), rate, sound.frames / rate)


def _checked(samples: Audio, rate: int) -> Audio:
    """Samples that are neither too few nor silent, within -1..1."""
    _check_length(samples.size / rate)
    check_recording(samples)
    samples /= max(1.0, np.abs(samples).max())  # floating-point files may exceed full scale
    if np.sqrt(np.mean(np.square(samples))) < SILENCE_RMS:
        raise BadReference("the recording is silent")
    return samples


def _check_length(seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise BadReference(f"the recording is {seconds:.2f} s long, and {MIN_SECONDS} s is the least")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error with the file into a `BadReference` that names it."""
    try:
        if not path.is_file():
            raise BadReference("it is not a file" if path.exists() else "there is no such file")
        yield
    except BadReference as error:
        raise BadReference(f"{str(path)!r}: {error.message}") from error
    except OSError as error:
        raise BadReference(f"{str(path)!r}: it cannot be read ({error.strerror})") from error
    except (sf.SoundFileError, TypeError) as error:  # TypeError: a name in .raw, which has no header to read
        reason = error.error_string if isinstance(error, sf.LibsndfileError) else "no known format"
        raise BadReference(f"{str(path)!r}: it cannot be read as audio ({reason})") from error
