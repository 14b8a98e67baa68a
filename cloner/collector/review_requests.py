"""Reading takes and references from the output folder, for the reviewers, which have none of its files."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile

from cloner.audio import SAMPLE_RATE, Audio
from cloner.audio_bytes import read_mono
from cloner.errors import BadReference, ClonerError
from cloner.output.audio_files import OutputRoot
from cloner.output.kept_references import KeptReferences
from cloner.protocol.messages import ReferenceRow
from cloner.protocol.references import audio_from_bytes
from cloner.protocol.results import SegmentResult
from cloner.protocol.reviews import LONGEST_S, ReviewRequest, pack_audio


class Unreadable(ClonerError):
    """The audio cannot be read."""


def take_request(
    batch_id: str, line: SegmentResult, text: str, language: str, outputs: OutputRoot
) -> tuple[ReviewRequest, float]:
    """The request for a segment's take, and the seconds of its audio. Raises `Unreadable`."""
    try:
        audio, rate, is_whole = _read(outputs, line.output)
        packed = pack_audio(audio, rate)
    except (OSError, ClonerError, soundfile.SoundFileError) as error:
        raise Unreadable(f"{line.output} cannot be read: {error}") from error
    if not len(audio):
        raise Unreadable(f"{line.output} has no samples")
    what = f"{line.segment}.{line.take}"
    seconds = len(audio) / rate
    part = 1.0 if is_whole else seconds / max(seconds, line.audio_s)
    request = ReviewRequest(batch_id=batch_id, what=what, text=text, language=language, audio=packed, part=part)
    return request, seconds


def reference_request(batch_id: str, row: ReferenceRow, root: Path) -> tuple[ReviewRequest, float]:
    """The request for a speaker's recording, and the seconds of its audio. Raises `Unreadable`."""
    try:
        data = KeptReferences(root).read(row)
        if data is None:
            raise BadReference("it is not there as it was kept")
        audio = audio_from_bytes(data)
        packed = pack_audio(audio, SAMPLE_RATE)
    except (OSError, BadReference, soundfile.SoundFileError) as error:
        raise Unreadable(f"the reference cannot be read: {error}") from error
    return ReviewRequest(batch_id=batch_id, what=f"reference {row.digest[:12]}", audio=packed), len(audio) / SAMPLE_RATE


def _read(outputs: OutputRoot, output: str) -> tuple[Audio, int, bool]:
    """At most `LONGEST_S` of an audio file, its sample rate, and whether that is all of it. Raises `OSError`,
    `SegmentFailed`, `SoundFileError`."""
    # Not read as a whole: an hour is 300 MB.
    with os.fdopen(outputs.open(output), "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        limit = round(LONGEST_S * sound.samplerate)
        audio = read_mono(sound, limit + 1)
        return audio[:limit], sound.samplerate, len(audio) <= limit
