"""References as files: finding them, checking them when a batch is read, and loading them to be sent.

Codes become a ``.npy`` of int32, recordings 16-bit FLAC: mono, at 44,100 Hz, 30 s at most.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from cloner.audio import SAMPLE_RATE, Audio, Codes, check_recording
from cloner.batch import CODEBOOK_SIZES, Reference, ReferenceKind
from cloner.errors import BadReference
from cloner.events import Event
from cloner.logs import log_event
from cloner.protocol.references import (
    MAX_FRAMES,
    MAX_SECONDS,
    ReferenceData,
    pack_audio,
    pack_codes,
    parse_codes,
    reference_key,
)
from cloner.validation import MAX_TEXT, leads_out, prose_flaw

MIN_SECONDS = 0.5
"""The shortest recording."""

SILENCE_RMS = 1e-3
"""RMS below which a recording counts as silent: -60 dB of full scale."""

RECORDING_ENDINGS = (".wav", ".flac", ".mp3", ".ogg")
"""Recordings in a folder of references. A file named in a batch may have any format that libsndfile reads."""

SAMPLE_RATES = range(1_000, 768_001)
"""Accepted sample rates of a recording, Hz."""

MAX_CHANNELS = 8
"""Most channels of a recording: those of 7.1 surround sound, and of FLAC."""

_BLOCK_SAMPLES = 65_536
"""Samples of all channels together that are read at once."""

_MAX_CODES_BYTES = 2**16 + len(CODEBOOK_SIZES) * MAX_FRAMES * 8
"""The largest ``.npy`` of codes: its header, and `MAX_FRAMES` frames of 8-byte integers."""

_MAX_TRANSCRIPT_BYTES = 4 * MAX_TEXT
"""The largest transcript: UTF-8 takes at most four bytes a character."""


def codes_file_problem(path: Path) -> str | None:
    """What is wrong with a file of codes, or None. Reads at most `_MAX_CODES_BYTES`."""
    return _problem(_read_codes, path)


def codes_frames(path: Path) -> int:
    """Frames of a file of codes. Raises `BadReference`."""
    return int(_read_codes(path).shape[1])


def recording_file_problem(path: Path) -> str | None:
    """What is wrong with a recording, or None. It is decoded, for a header does not show silence."""
    return _problem(_read_recording, path)


def outside(path: Path, roots: Sequence[Path]) -> str | None:
    """What is wrong with a file's place, or None: all links followed, it must be in one of the `roots`."""
    real = leads_out(path, roots)
    if real is None:
        return None
    leads = "lies" if real == str(path) else f"leads to {real!r},"
    return f"{str(path)!r} {leads} outside of the batch's folder, and CLONER_REFERENCES_DIR is no folder that holds it"


def find_reference(folder: Path, roots: Sequence[Path]) -> Reference:
    """The reference in a folder of fish-speech's layout: recordings, each with a ``.lab`` transcript of the same stem.

    Recordings are joined in the order of their names while they fit in `MAX_SECONDS`; the first is always used. All
    links must lead into one of the `roots`. Raises `BadReference`, which names every file that is wrong.
    """
    paths: list[Path] = []
    texts: list[str] = []
    flaws: list[str] = []
    total = 0.0
    for path in _recordings(folder):
        transcript = path.with_suffix(".lab")
        try:
            for file in (path, transcript):
                if flaw := outside(file, roots):
                    raise BadReference(flaw)
            seconds = _seconds(path)
            if paths and total + seconds > MAX_SECONDS:
                break
            texts.append(read_transcript(transcript))
            _read_recording(path)
            paths.append(path)
            total += seconds
        except BadReference as error:
            flaws.append(error.message)
    text = " ".join(texts)
    if not flaws and (flaw := prose_flaw(text)):
        flaws.append(f"{str(folder)!r}: the transcript {flaw}")
    if flaws:
        raise BadReference("; ".join(flaws))
    return Reference(ReferenceKind.AUDIO, tuple(paths), text)


def load_reference(reference: Reference) -> ReferenceData:
    """Read, check and pack a reference. Raises `BadReference`; logs a warning where a recording is cut."""
    match reference.kind:
        case ReferenceKind.CODES:
            data = pack_codes(_read_codes(reference.paths[0]))
        case ReferenceKind.AUDIO:
            data = pack_audio(_join(reference.paths))
    return ReferenceData(reference.kind, data, reference.text, reference_key(reference.kind, data))


def _problem(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except BadReference as error:
        return error.message
    return None


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


def _read_codes(path: Path) -> Codes:
    with _reading(path), path.open("rb") as file:
        # A limit, because the file may have any size, whatever its header says.
        return parse_codes(io.BytesIO(file.read(_MAX_CODES_BYTES)))


def _recordings(folder: Path) -> list[Path]:
    """The recordings in `folder`, by name; hidden files are left out."""
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise BadReference(f"{str(folder)!r}: the folder cannot be read ({error.strerror})") from error
    paths = sorted(path for path in entries if path.suffix.lower() in RECORDING_ENDINGS)
    if not paths:
        raise BadReference(f"{str(folder)!r}: the folder holds no recording ({', '.join(RECORDING_ENDINGS)})")
    return paths


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


def _seconds(path: Path) -> float:
    """The recording's length by its header. Raises `BadReference`."""
    with _reading(path), sf.SoundFile(os.fsencode(path)) as sound:
        seconds: float = sound.frames / sound.samplerate
        _check_length(seconds)
        return seconds


def _check_length(seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise BadReference(f"the recording is {seconds:.2f} s long, and {MIN_SECONDS} s is the least")


def _join(paths: tuple[Path, ...]) -> Audio:
    """The recordings one after another, ``[samples]`` in -1..1 at `SAMPLE_RATE`, at most `MAX_SECONDS` in all."""
    recordings = [_read_recording(path) for path in paths]
    total = sum(seconds for _, seconds in recordings)
    if total > MAX_SECONDS:
        names = ", ".join(repr(str(path)) for path in paths)
        log_event(Event.REFERENCE_CUT, names=names, most_s=MAX_SECONDS, total_s=total)
    audio = np.concatenate([audio for audio, _ in recordings])[: MAX_SECONDS * SAMPLE_RATE]
    return audio.clip(-1, 1)  # resampling may overshoot


def _read_recording(path: Path) -> tuple[Audio, float]:
    """The recording at `SAMPLE_RATE`, up to `MAX_SECONDS`, and its whole length in seconds by its header."""
    with _reading(path), sf.SoundFile(os.fsencode(path)) as sound:
        rate = sound.samplerate
        if sound.channels > MAX_CHANNELS:
            what = f"the recording has {sound.channels} channels, and {MAX_CHANNELS} is the most"
            raise BadReference(f"{what}: mix it down to one")
        if rate not in SAMPLE_RATES:
            least, most = SAMPLE_RATES[0], SAMPLE_RATES[-1]
            raise BadReference(f"the recording has {rate} samples a second, and {least} to {most} can be used")
        audio = _read_mono(sound, MAX_SECONDS * rate)
        _check_length(audio.size / rate)
        check_recording(audio)
        audio /= max(1.0, np.abs(audio).max())  # floating-point files may exceed full scale
        if np.sqrt(np.mean(np.square(audio))) < SILENCE_RMS:
            raise BadReference("the recording is silent")
        resampled: Audio = soxr.resample(audio, rate, SAMPLE_RATE)
        return resampled, sound.frames / rate


def _read_mono(sound: sf.SoundFile, limit: int) -> Audio:
    """At most `limit` samples, the mean of the channels. Read in blocks: a header may claim more than the file has."""
    blocks = [np.zeros(0, np.float32)]
    while limit > 0:
        block = sound.read(min(limit, max(1, _BLOCK_SAMPLES // sound.channels)), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block.mean(axis=1))
        limit -= len(block)
    return np.concatenate(blocks)
