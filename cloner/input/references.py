"""References as files: finding them, judging them when a batch is read, and loading them to be sent.

Codes become a ``.npy`` of int32, recordings 16-bit FLAC: mono, at 44,100 Hz, 30 s at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soxr

from cloner.audio import SAMPLE_RATE, Audio
from cloner.batch import Reference, ReferenceKind
from cloner.errors import BadReference, Problem
from cloner.input.ffmpeg import DEMUXERS
from cloner.input.reference_files import (
    Recording,
    outside,
    read_codes,
    read_recording,
    recording_seconds,
)
from cloner.input.reference_quality import (
    Quality,
    codes_quality,
    recording_doubts,
    recording_quality,
    reference_doubts,
)
from cloner.input.transcripts import Transcripts
from cloner.protocol.references import MAX_SECONDS, ReferenceData, pack_audio, pack_codes, reference_key
from cloner.validation import prose_flaw, shown

SNDFILE_ENDINGS = (".wav", ".flac", ".mp3", ".ogg")
"""Recordings in a folder of references. A file named in a batch may have any format that libsndfile reads."""

RECORDING_ENDINGS = (*SNDFILE_ENDINGS, *DEMUXERS)
"""The same, with those that need ffmpeg."""


def measure_file(kind: ReferenceKind, path: Path) -> Quality:
    """Read a file of codes, or decode a recording, for a header does not show silence. Raises `BadReference`."""
    match kind:
        case ReferenceKind.CODES:
            return codes_quality(read_codes(path))
        case ReferenceKind.AUDIO:
            return recording_quality(read_recording(path))


def judged(kind: ReferenceKind, paths: Sequence[Path], qualities: Sequence[Quality], text: str) -> Reference:
    """The reference of these files, which `measure_file` has measured, with what may be wrong with it.

    A transcript that is empty is not known.
    """
    doubts: list[Problem] = []
    for path, quality in zip(paths, qualities, strict=True):
        if kind is ReferenceKind.AUDIO:
            doubts += recording_doubts(shown(path.name), quality)
    whole = paths[0] if len(paths) == 1 else paths[0].parent
    doubts += reference_doubts(shown(whole.name), qualities, text)
    return Reference(kind, tuple(paths), text, tuple(doubts))


def codes_frames(path: Path) -> int:
    """Frames of a file of codes. Raises `BadReference`."""
    return int(read_codes(path).shape[1])


def find_reference(
    folder: Path,
    roots: Sequence[Path],
    transcript: Callable[[ReferenceKind, Path], str | None] | None = None,
    is_recording: Callable[[Path], bool] = lambda _: True,
) -> Reference:
    """The reference in a folder of fish-speech's layout: recordings, each with a ``.lab`` transcript of the same stem,
    or a ``.txt``. Those that need ffmpeg are used if there are no others.

    Recordings are joined in the order of their names while they fit in `MAX_SECONDS`; the first is always used. All
    links must lead into one of the `roots`. The `transcript` of a recording is by default the file beside it; if it is
    None for one, that of the reference is empty. Files of which `is_recording` is false are left out. Raises
    `BadReference`, which names every file that is wrong.
    """
    transcript = transcript or Transcripts(roots).find
    paths: list[Path] = []
    texts: list[str | None] = []
    qualities: list[Quality] = []
    flaws: list[str] = []
    total = 0.0
    for path in _recordings(folder, is_recording):
        try:
            if flaw := outside(path, roots):
                raise BadReference(flaw)
            seconds = recording_seconds(path)
            if paths and total + seconds > MAX_SECONDS:
                break
            qualities.append(measure_file(ReferenceKind.AUDIO, path))
            texts.append(transcript(ReferenceKind.AUDIO, path))
            paths.append(path)
            total += seconds
        except BadReference as error:
            flaws.append(error.message)
    known = [text for text in texts if text is not None]
    text = " ".join(known) if len(known) == len(texts) else ""
    if not flaws and text and (flaw := prose_flaw(text)):
        flaws.append(f"{str(folder)!r}: the transcript {flaw}")
    if flaws:
        raise BadReference("; ".join(flaws))
    return judged(ReferenceKind.AUDIO, paths, qualities, text)


def load_reference(reference: Reference) -> ReferenceData:
    """Read, check and pack a reference. Raises `BadReference`."""
    match reference.kind:
        case ReferenceKind.CODES:
            data = pack_codes(read_codes(reference.paths[0]))
        case ReferenceKind.AUDIO:
            data = pack_audio(_join(reference.paths))
    return ReferenceData(reference.kind, data, reference.text, reference_key(reference.kind, data))


def _recordings(folder: Path, is_recording: Callable[[Path], bool]) -> list[Path]:
    """The recordings in `folder`, by name; hidden files are left out."""
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise BadReference(f"{str(folder)!r}: the folder cannot be read ({error.strerror})") from error
    for endings in (SNDFILE_ENDINGS, DEMUXERS):
        if paths := sorted(path for path in entries if path.suffix.lower() in endings and is_recording(path)):
            return paths
    raise BadReference(f"{str(folder)!r}: the folder holds no recording ({', '.join(RECORDING_ENDINGS)})")


def _join(paths: tuple[Path, ...]) -> Audio:
    """The recordings one after another, ``[samples]`` in -1..1 at `SAMPLE_RATE`, at most `MAX_SECONDS` in all."""
    audio = np.concatenate([_resampled(read_recording(path)) for path in paths])[: MAX_SECONDS * SAMPLE_RATE]
    return audio.clip(-1, 1)  # resampling may overshoot


def _resampled(recording: Recording) -> Audio:
    """What is used of a recording, at `SAMPLE_RATE`."""
    audio: Audio = soxr.resample(recording.samples, recording.rate, SAMPLE_RATE)
    return audio
