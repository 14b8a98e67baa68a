"""Rounds of a batch: chunks are published again as long as segments without a result can still be generated.

A chunk may end without a line in the record for each of its segments: its task raised an error, or was revoked. Then a
round follows, of such chunks only, and another, for as long as rounds add lines; after three in a row that add none,
the rest is missing.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from cloner.output.record import Record
from cloner.protocol.messages import ChunkRow, Manifest
from cloner.state.progress import ChunkProgress, Round

MAX_FRUITLESS = 3
"""Rounds in a row that add no line to the record, before the rest of the batch is given up."""


def next_round(
    manifest: Manifest, record: Record, progress: Mapping[int, ChunkProgress], ended: Round
) -> tuple[Round | None, dict[int, ChunkProgress]]:
    """The round that follows the one that `ended`, None if none should; and the progress of its chunks, as recorded.

    A chunk whose record could not be kept is left out: its worker has waited for the disk as long as it should. So is a
    chunk that is given up.
    """
    unfinished = {}
    missing = 0
    for chunk in manifest.chunks:
        known = progress.get(chunk.number)
        lacking = sum(index not in record.results for index in segments_of(manifest, chunk))
        missing += lacking
        if lacking and not (known and known.is_ended_for_good):
            unfinished[chunk.number] = recorded(manifest, chunk, record)
    has_progressed = ended.number == 0 or missing < ended.missing
    fruitless = 0 if has_progressed else ended.fruitless + 1
    if not unfinished or fruitless >= MAX_FRUITLESS:
        return None, {}
    return Round(ended.number + 1, tuple(unfinished), missing, fruitless), unfinished


def segments_of(manifest: Manifest, chunk: ChunkRow) -> Iterator[int]:
    """Indexes of the chunk's segments."""
    for part in chunk.slices:
        for row in manifest.speakers[part.speaker].segments[part.start : part.stop]:
            yield row.segment


def recorded(
    manifest: Manifest, chunk: ChunkRow, record: Record, without: Container[int] = frozenset()
) -> ChunkProgress:
    """The progress of a chunk by its record, `without` some segments, which are generated again."""
    progress = ChunkProgress()
    for index in segments_of(manifest, chunk):
        if index in record.results and index not in without:
            progress.add(record.results[index])
    return progress
