"""A batch as it was opened, beside its record: its texts are known there when Redis has forgotten it.

``OUT/.cloner/BATCH_ID/batch.ndjson`` has the manifest without chunks in its first line, with the number of segments,
then a line for each speaker, which is followed by those of its segments: a million are read one by one. (Files that end
in ``.jsonl`` are the record's.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from cloner.errors import Damaged, UnknownBatch, UsageError
from cloner.output.audio_files import OutputRoot
from cloner.output.own_folder import OwnFolder
from cloner.output.record import batch_folder, read_result, translate_disk_errors
from cloner.output.redo import without_later_takes
from cloner.protocol.fields import Index, Language, Name, Output, Text
from cloner.protocol.messages import Manifest, SpeakerRow, part_of
from cloner.protocol.queries import PartRequest
from cloner.protocol.rows import SegmentRow

BATCH = "batch.ndjson"


class _Line(NamedTuple):
    """A segment's line."""

    segment: int
    text: str
    output: str
    seed: int
    id: str | None
    language: Language | None = None
    """The text's, where that is not the speaker's."""


_LINES = TypeAdapter(_Line)
_SEGMENTS = TypeAdapter(tuple[Index, Text, Output, Index, Name | None])
"""The first five of a line, with outputs and texts checked, which takes three times as long."""


class KeptSegment(NamedTuple):
    """A segment with its speaker, and its id in the batch if it has one."""

    speaker: SpeakerRow
    """Without segments; of languages, it has that of this one."""
    row: SegmentRow
    id: str | None


class _Head(BaseModel):
    """The first line."""

    segments: Index
    """How many lines of segments follow."""
    batch: Manifest
    """Without speakers, chunks and ids."""


class KeptBatch:
    """The batch in a folder. Methods raise `OSError`, `FileNotFoundError` if none is there, and `Damaged`."""

    def __init__(self, folder: OwnFolder) -> None:
        self._folder = folder

    def write(self, manifest: Manifest) -> None:
        """Keep a batch, as a whole or not at all. It is on the disk then."""
        self._folder.write(BATCH, _lines(manifest), sync=True)

    def head(self) -> Manifest:
        """The batch without speakers."""
        return self._head().batch

    def segments(self) -> Iterator[KeptSegment]:
        """All segments, in the batch's order. Neither outputs nor texts are checked."""
        speaker: SpeakerRow | None = None
        found, expected = 0, self._head().segments
        lines = self._folder.lines(BATCH)
        next(lines, None)
        with self._reading():
            for line in lines:
                if line.startswith(b"{"):
                    speaker = SpeakerRow.model_validate_json(line)
                elif speaker:
                    found += 1
                    index, text, output, seed, segment_id, language = _LINES.validate_json(line)
                    own = speaker
                    if language is not None:
                        own = speaker.model_copy(update={"other_languages": [(index, language)]})
                    yield KeptSegment(own, SegmentRow(index, text, output, seed), segment_id)
        if found != expected:
            raise self._damaged(f"it has {found} segments instead of {expected}")

    def part(self, is_wanted: Callable[[SegmentRow], bool]) -> Manifest:
        """The batch with some of its segments alone, and without chunks."""
        return part_of(self.head(), self._checked(segment for segment in self.segments() if is_wanted(segment.row)))

    def _checked(self, segments: Iterable[KeptSegment]) -> Iterator[KeptSegment]:
        """The segments, with outputs and texts checked, each once."""
        there: set[int] = set()
        for segment in segments:
            with self._reading():
                _SEGMENTS.validate_python((*segment.row, segment.id))
            if segment.row.segment in there:
                raise self._damaged(f"segment {segment.row.segment} is there twice")
            there.add(segment.row.segment)
            yield segment

    def _head(self) -> _Head:
        with self._reading(), os.fdopen(self._folder.open_file(BATCH, os.O_RDONLY), "rb") as file:
            head = _Head.model_validate_json(file.readline())
        if head.batch.batch_id != self._folder.path.name:
            raise self._damaged(f"it is of batch {head.batch.batch_id}")
        return head

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            raise self._damaged(f"{error.error_count()} validation errors") from None

    def _damaged(self, reason: str) -> Damaged:
        path = self._folder.path / BATCH
        return Damaged(f"{path} is damaged, or another version wrote it ({reason}): submit the batch's file again")


def _lines(manifest: Manifest) -> Iterator[bytes]:
    ids = dict(manifest.ids)
    batch = manifest.model_copy(update={"speakers": [], "chunks": [], "ids": []})
    head = _Head(segments=manifest.total, batch=batch)
    # The file is of no version of the wire format.
    yield head.model_dump_json(exclude={"batch": {"schema_version"}}).encode() + b"\n"
    for speaker in manifest.speakers:
        alone = speaker.model_copy(update={"segments": [], "other_languages": []})
        yield alone.model_dump_json().encode() + b"\n"
        for row in speaker.segments:
            language = speaker.language_of(row.segment)
            # In the segment's line, not in the speaker's: that would be as long as the speaker has texts.
            own = () if language == speaker.language else (language,)
            yield to_json((*row, ids.get(row.segment), *own)) + b"\n"


def read_part(root: Path, request: PartRequest) -> Manifest:
    """The part of a batch under that output root. What failed in a redo is left out where a later take is there.

    Raises `UnknownBatch`, `UsageError`, `Damaged`, `RecordFailed`.
    """
    folder = batch_folder(root, request.batch_id)
    kept = KeptBatch(folder)
    with translate_disk_errors(folder.path):
        try:
            head = kept.head()
            failed = _failed(folder) if request.failed else set()
            if failed and head.redo:
                failed = without_later_takes(OutputRoot(root), request.batch_id, failed)
                if not failed:
                    raise UsageError(
                        f"later takes of all that failed in batch {request.batch_id} are there: nothing is left"
                    )
            return request.choose(kept.part, failed)
        except FileNotFoundError:
            raise UnknownBatch(
                f"no batch {request.batch_id} is kept under {root}: `cloner list --out {root}` lists those that are"
            ) from None


def _failed(folder: OwnFolder) -> set[int]:
    """The segments that failed in a batch, by its result."""
    try:
        return set(read_result(folder).errors)
    except FileNotFoundError:
        raise UsageError(
            f"batch {folder.path.name} was stopped before its end: run its file again; only what is missing is spoken"
        ) from None
