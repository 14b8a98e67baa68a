"""The list of a batch's audio files with their texts, for people and programs: ``manifest.jsonl``, ``manifest.csv``.

Texts are read from the batch that is kept beside the record, one by one: those of a million segments are never in
memory together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic_core import to_json

from cloner.output.kept_batch import KeptBatch
from cloner.protocol.results import SegmentResult, Suspect

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula."""

Suspects = Mapping[int, Suspect]


class ManifestRow(NamedTuple):
    """One audio file."""

    path: str
    """Relative to the output root."""
    segment: int
    id: str | None
    """The segment's id in the batch, if it has one."""
    speaker: str
    text: str
    """As it was spoken, after `pronounce`."""
    seconds: float
    take: int
    attempts: int
    """Most at one of its pieces."""
    checks: str
    """The checks that what was kept fails, with spaces between."""


def manifest_json(batch: KeptBatch, lines: Mapping[int, SegmentResult], suspects: Suspects) -> Iterator[str]:
    """A JSON object for each segment that was generated; `lines` are those of the record, by segment, and `suspects`
    those of the result."""
    for row in _rows(batch, lines, suspects):
        yield to_json(row._asdict()).decode() + "\n"


def manifest_csv(batch: KeptBatch, lines: Mapping[int, SegmentResult], suspects: Suspects) -> Iterator[str]:
    """The same as a table with commas. A cell that would be a formula begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(ManifestRow._fields)
    for row in _rows(batch, lines, suspects):
        writer.writerow(map(_neutral, row))
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()  # of a batch without audio, the header


def _rows(batch: KeptBatch, lines: Mapping[int, SegmentResult], suspects: Suspects) -> Iterator[ManifestRow]:
    for speaker, (index, text, output, _), segment_id in batch.segments():
        line = lines.get(index)
        if line and line.generated:
            attempts = max((attempt.number for attempt in line.attempts), default=1)
            failed = " ".join(suspects[index].failed if index in suspects else line.failed_checks)
            seconds = round(line.audio_s, 3)
            yield ManifestRow(output, index, segment_id, speaker.id, text, seconds, line.take, attempts, failed)


def _neutral(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
