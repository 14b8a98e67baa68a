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
from cloner.output.record import Record
from cloner.output.redo import spoken_again
from cloner.protocol.results import Suspect, most_attempts

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
    """The most at one of its pieces in its chunk, and the takes that the batch's review had spoken again."""
    checks: str
    """The checks that what was kept fails, with spaces between."""


def manifest_json(record: Record, suspects: Suspects) -> Iterator[str]:
    """A JSON object for each segment of a closed batch that was generated; `suspects` are those of the result. Raises
    `RecordFailed`, `OSError`, `Damaged`."""
    for row in _rows(record, suspects):
        yield to_json(row._asdict()).decode() + "\n"


def manifest_csv(record: Record, suspects: Suspects) -> Iterator[str]:
    """The same as a table with commas. A cell that would be a formula begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(ManifestRow._fields)
    for row in _rows(record, suspects):
        writer.writerow(map(_neutral, row))
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()  # of a batch without audio, the header


def _rows(record: Record, suspects: Suspects) -> Iterator[ManifestRow]:
    again = spoken_again(record)
    for speaker, row, segment_id in KeptBatch(record.folder).segments():
        index = row.segment
        if lines := record.generated_lines(index):
            line, attempts = lines[0], most_attempts(lines) + again[index]
            failed = " ".join(suspects[index].failed if index in suspects else line.failed_checks)
            seconds = round(line.audio_s, 3)
            yield ManifestRow(row.output, index, segment_id, speaker.id, row.text, seconds, line.take, attempts, failed)


def _neutral(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
