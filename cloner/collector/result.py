"""A batch's result, from its record and what its chunks have reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from types import MappingProxyType

from cloner.collector.rounds import segments_of
from cloner.errors import printable
from cloner.output.record import Record
from cloner.output.reviews import TakeReview
from cloner.protocol.messages import Manifest
from cloner.protocol.results import BatchResult, ReviewResult, SegmentError, SegmentResult, SpeakerResult, Suspect
from cloner.state.progress import ChunkProgress

MANY_ERRORS = 100_000
"""Errors of a batch from which on their messages are cut."""

CUT_CHARACTERS = 80
"""Characters that are left of one: those of a million segments must fit into what Redis holds as one result. The record
has them whole."""


def gather(  # noqa: PLR0913 - the parts of a result
    manifest: Manifest,
    record: Record,
    out_dir: Path,
    *,
    cancelled: bool,
    progress: Mapping[int, ChunkProgress],
    now: float,
    reviews: Mapping[int, TakeReview] = MappingProxyType({}),
    review: ReviewResult | None = None,
) -> BatchResult:
    """The batch's result, in which a segment without a line in the record is an error.

    `progress` is that of the chunks, by number; `now` is the server's time in seconds. `reviews` are those of the
    segments' takes, and `review` what they have come to.
    """
    chunk_of_missing = {
        index: chunk.number
        for chunk in manifest.chunks
        for index in segments_of(manifest, chunk)
        if index not in record.results
    }
    results: dict[int, str] = {}
    errors: dict[int, SegmentError] = {}
    workers: dict[str, int] = {}
    spoken: list[SegmentResult] = []
    speakers: dict[str, SpeakerResult] = {}
    for speaker in manifest.speakers:
        before = len(spoken)
        for row in speaker.segments:
            index, output = row.segment, row.output
            found = record.results.get(index)
            if found and found.generated:
                results[index] = output
                workers[found.worker] = workers.get(found.worker, 0) + 1
                spoken.append(found)
            elif found:
                code, message = found.code, found.message
                errors[index] = SegmentError(speaker=speaker.id, output=output, code=code, message=message)
            else:
                code, message = _error_without_line(record, cancelled, progress.get(chunk_of_missing.get(index, -1)))
                errors[index] = SegmentError(speaker=speaker.id, output=output, code=code, message=message)
        texts, own = len(speaker.segments), spoken[before:]
        speakers[speaker.id] = SpeakerResult(
            texts=texts, generated=len(own), failed=texts - len(own), audio_s=_audio_s(own)
        )
    return BatchResult(
        batch_id=manifest.batch_id,
        source=manifest.source,
        total=manifest.total,
        generated=len(results),
        failed=len(errors),
        cancelled=cancelled,
        out_dir=printable(out_dir),
        results=dict(sorted(results.items())),
        errors=_cut(dict(sorted(errors.items()))),
        suspects={
            line.segment: _suspect(line, reviews.get(line.segment))
            for line in sorted(spoken, key=lambda line: line.segment)
            if line.is_suspect or (line.segment in reviews and reviews[line.segment].failed)
        },
        review=review or ReviewResult(),
        reused=sum(segment.reused for segment in spoken),
        submitted_at=manifest.submitted_at,
        # 0 where the server's clock was put back meanwhile.
        elapsed_s=max(0.0, round(now - manifest.submitted_at, 3)),
        audio_s=_audio_s(spoken),
        reused_audio_s=_audio_s(segment for segment in spoken if segment.reused),
        frames=sum(segment.frames for segment in spoken),
        workers=dict(sorted(workers.items())),
        speakers=speakers,
        engine=manifest.engine,
        fingerprint=manifest.fingerprint,
    )


def _cut(errors: dict[int, SegmentError]) -> dict[int, SegmentError]:
    if len(errors) < MANY_ERRORS:
        return errors
    return {
        index: error.model_copy(update={"message": shorten(error.message, CUT_CHARACTERS, placeholder=" ...")})
        for index, error in errors.items()
    }


def _suspect(line: SegmentResult, review: TakeReview | None) -> Suspect:
    failed = sorted({*line.failed_checks, *(review.failed if review else ())})
    return Suspect(speaker=line.speaker, output=line.output, failed=failed)


def _audio_s(segments: Iterable[SegmentResult]) -> float:
    return round(sum(segment.audio_s for segment in segments), 3)


def _error_without_line(record: Record, cancelled: bool, chunk: ChunkProgress | None) -> tuple[str, str]:
    """Code and message of a segment of which nothing is recorded; `chunk` is the progress of its chunk."""
    if cancelled:
        return "cancelled", "the batch was cancelled before this segment was generated"
    if chunk and chunk.given_up:
        return "crashed", (
            "the message of its chunk killed the process of its worker again and again; it is kept in the dead-letter "
            "list: see `launcher dead-letters`"
        )
    if chunk and chunk.error:
        return "output", chunk.error
    return "missing", (
        f"nothing is recorded of it in {printable(record.directory)}; could it not be written, or do workers and"
        " collector not share that folder?"
    )
