"""What travels: the manifest of a batch and the message of a chunk, as JSON with a schema version.

The manifest is the whole batch as it was dealt. The submitter puts it into Redis and sends one message that names it,
so a batch is either whole or not there; the collector makes the chunks' messages from it. References do not travel in
messages: they lie in Redis under their content hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cloner import queues
from cloner.batch import Generation, ReferenceKind
from cloner.errors import WrongSchema
from cloner.packing import Packed

SegmentRow = tuple[int, str, str]
"""Segment index, text, output relative to the output root."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReferenceRow(_Wire):
    """Where a speaker's reference lies, and what it says."""

    kind: ReferenceKind
    digest: str
    text: str


class SpeakerRow(_Wire):
    """A speaker of a manifest with all of its segments."""

    id: str
    reference: ReferenceRow
    segments: list[SegmentRow]


class PartRow(_Wire):
    """Segments ``start:stop`` of the `speaker`-th speaker of the manifest."""

    speaker: int
    start: int
    stop: int
    place: int
    """The speaker's place among those of the assignment, from 1."""
    texts: int
    """Texts of this speaker in the whole assignment."""


class ChunkRow(_Wire):
    """A chunk as it was dealt."""

    number: int
    queue: str
    assignment: int
    """Chunks of one assignment are counted together in the log: a worker's share, or all of a shared queue's batch."""
    speakers: int
    texts: int
    """Speakers and texts in the whole assignment."""
    shared: bool
    """Whether the assignment is that of all workers."""
    parts: list[PartRow]


class SpeakerPart(_Wire):
    """One speaker's segments within a chunk's message."""

    id: str
    reference: ReferenceRow
    segments: list[SegmentRow]
    place: int
    texts: int


class ChunkMessage(_Wire):
    """All that a worker needs to speak a chunk, but for the references' bytes."""

    schema_version: int = queues.SCHEMA
    batch_id: str
    number: int
    assignment: int
    speakers: int
    texts: int
    shared: bool
    generation: Generation
    parts: list[SpeakerPart]

    @property
    def total(self) -> int:
        """Segments in this chunk."""
        return sum(len(part.segments) for part in self.parts)

    def summary(self) -> str:
        """What Flower shows for arguments: whose texts and how many, never the texts."""
        speakers = ", ".join(part.id for part in self.parts[:8]) + (", ..." if len(self.parts) > 8 else "")
        return f"batch {self.batch_id}, chunk {self.number}, speakers [{speakers}], {self.total} texts"


class Manifest(_Wire, Packed):
    """A batch as it was dealt."""

    schema_version: int = queues.SCHEMA
    batch_id: str
    source: str
    submitted_at: float
    generation: Generation
    engine: str = ""
    fingerprint: str = ""
    """Engine and checkpoint of the workers that it was dealt to: what segments' content keys follow from."""
    speakers: list[SpeakerRow]
    chunks: list[ChunkRow]

    @property
    def total(self) -> int:
        """Segments in the batch."""
        return sum(len(speaker.segments) for speaker in self.speakers)

    def outputs(self) -> Iterator[str]:
        """The audio files of the batch, relative to the output root."""
        return (output for speaker in self.speakers for _, _, output in speaker.segments)

    def message(self, chunk: ChunkRow) -> ChunkMessage:
        """The message of one of this batch's chunks."""
        parts = []
        for part in chunk.parts:
            speaker = self.speakers[part.speaker]
            parts.append(
                SpeakerPart(
                    id=speaker.id,
                    reference=speaker.reference,
                    segments=speaker.segments[part.start : part.stop],
                    place=part.place,
                    texts=part.texts,
                )
            )
        return ChunkMessage(
            batch_id=self.batch_id,
            number=chunk.number,
            assignment=chunk.assignment,
            speakers=chunk.speakers,
            texts=chunk.texts,
            shared=chunk.shared,
            generation=self.generation,
            parts=parts,
        )


class Question(_Wire, Packed):
    """What a client asks the collector about outputs that only the fleet sees."""

    wanted: dict[str, str]
    """Output -> content key."""


class Answer(_Wire, Packed):
    """What the collector found in the records; the other outputs that were asked about are missing."""

    finished: list[str]
    changed: list[str]
    """Outputs that were generated with another key."""
    error: str = ""
    """Why it could not look, if it could not."""


def schema_of(message: dict[str, Any]) -> int:
    """The version of the wire format that a chunk's message claims; `WrongSchema` if it claims none."""
    version = message.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise WrongSchema(f"a chunk's message names no schema version (this worker reads version {queues.SCHEMA})")
    return version


def read_chunk(message: dict[str, Any]) -> ChunkMessage:
    """The message as values; `WrongSchema` where it is not what its version says."""
    try:
        return ChunkMessage.model_validate(message)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise WrongSchema(
            f"a chunk's message is not of schema version {queues.SCHEMA}: {place}: {first['msg']}"
        ) from None
