"""What travels: the manifest of a batch and the message of a chunk, as JSON with a schema version.

The manifest is the whole batch as it was dealt. The submitter puts it into Redis and sends one message that names it,
so a batch is either whole or not there; the collector makes the chunks' messages from it. References do not travel in
messages: they lie in Redis under their content hash.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from cloner.batch import Generation, ReferenceKind
from cloner.errors import Damaged, UsageError, WrongSchema
from cloner.names import SCHEMA
from cloner.validation import name_flaw, output_flaw, prose_flaw, shown

MAX_BYTES = 256 * 1024**2
"""The longest JSON that is packed, and unpacked: what is a few KB in Redis may be made to fill a worker's memory."""


class Packed(BaseModel):
    """A model that can be packed."""

    def pack(self) -> bytes:
        """Compressed JSON. Raises `UsageError` if it is longer than `MAX_BYTES`."""
        data = self.model_dump_json().encode()
        if len(data) > MAX_BYTES:
            raise UsageError(f"the batch is too large ({len(data)} bytes, and {MAX_BYTES} is the most): split it up")
        return zlib.compress(data, level=1)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The value that `pack` made. Raises `Damaged`."""
        inflating = zlib.decompressobj()
        try:
            text = inflating.decompress(data, MAX_BYTES)
            if inflating.eof:
                return cls.model_validate_json(text)
            reason = f"it is cut off, or longer than {MAX_BYTES} bytes"
        except (zlib.error, ValidationError, TypeError) as error:
            reason = str(error).splitlines()[0]
        raise Damaged(f"what Redis holds as a {cls.__name__} is damaged, or another version wrote it ({reason})")


_BATCH_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def is_batch_id(value: object) -> bool:
    """Whether a batch may be called so: its id names keys in Redis and a folder beside the outputs."""
    return isinstance(value, str) and bool(_BATCH_ID.fullmatch(value))


def check_batch_id(value: object) -> str:
    """`value` as a batch's id. Raises `WrongSchema`."""
    if isinstance(value, str) and is_batch_id(value):
        return value
    raise WrongSchema(f"{shown(value)} is no batch's id")


def _unless(flaw: Callable[[str], str | None]) -> AfterValidator:
    """Lets a text through in which `flaw` finds nothing."""

    def check(text: str) -> str:
        if found := flaw(text):
            raise ValueError(f"it {found}")
        return text

    return AfterValidator(check)


def _output_flaw(output: str) -> str | None:
    flaw = output_flaw(output)
    return flaw[0] if flaw else name_flaw(output)


BatchId = Annotated[str, _unless(lambda text: None if is_batch_id(text) else "is no batch's id")]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Queue = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9._-]{1,200}$")]
Name = Annotated[str, _unless(name_flaw)]
Prose = Annotated[str, _unless(prose_flaw)]
Output = Annotated[str, _unless(_output_flaw)]
Index = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]

SegmentRow = tuple[Index, Prose, Output]
"""Segment index, text, output relative to the output root."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReferenceRow(_Wire):
    """Where a speaker's reference lies, and what it says."""

    kind: ReferenceKind
    digest: Digest
    text: Prose


class SpeakerRow(_Wire):
    """A speaker of a manifest with all of its segments."""

    id: Name
    reference: ReferenceRow
    segments: list[SegmentRow]


class PartRow(_Wire):
    """Segments ``start:stop`` of the `speaker`-th speaker of the manifest."""

    speaker: Count
    start: Count
    stop: Count
    place: Count
    """The speaker's place among those of the assignment, from 1."""
    texts: Count
    """Texts of this speaker in the whole assignment."""


class ChunkRow(_Wire):
    """A chunk as it was dealt."""

    number: Count
    queue: Queue
    assignment: Count
    """Chunks of one assignment are counted together in the log: a worker's share, or all of a shared queue's batch."""
    speakers: Count
    texts: Count
    """Speakers and texts in the whole assignment."""
    shared: bool
    """Whether the assignment is that of all workers."""
    parts: list[PartRow]


class SpeakerPart(_Wire):
    """One speaker's segments within a chunk's message."""

    id: Name
    reference: ReferenceRow
    segments: list[SegmentRow]
    place: Count
    texts: Count


class ChunkMessage(_Wire):
    """All that a worker needs to speak a chunk, but for the references' bytes."""

    schema_version: int = SCHEMA
    batch_id: BatchId
    number: Count
    assignment: Count
    speakers: Count
    texts: Count
    shared: bool
    generation: Generation
    parts: list[SpeakerPart]

    @property
    def total(self) -> int:
        """Segments in this chunk."""
        return sum(len(part.segments) for part in self.parts)

    def summary(self) -> str:
        """What Flower shows for arguments, and shortens at the end: whose texts and how many, never the texts."""
        speakers = ", ".join(part.id for part in self.parts[:8]) + (", ..." if len(self.parts) > 8 else "")
        return f"speakers [{speakers}], {self.total} texts, chunk {self.number} of batch {self.batch_id}"


class Manifest(_Wire, Packed):
    """A batch as it was dealt."""

    schema_version: int = SCHEMA
    batch_id: BatchId
    source: Annotated[str, Field(max_length=4096)]
    submitted_at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    generation: Generation
    engine: str = ""
    fingerprint: str = ""
    """Engine and checkpoint of the workers that it was dealt to: what segments' content keys follow from."""
    speakers: list[SpeakerRow]
    chunks: list[ChunkRow]

    @model_validator(mode="after")
    def _parts_are_there(self) -> Self:
        """Each chunk is of these speakers' segments, and all chunks together are no more than they have."""
        parts = [part for chunk in self.chunks for part in chunk.parts]
        sizes = [len(speaker.segments) for speaker in self.speakers]
        inside = all(part.speaker < len(sizes) and part.start < part.stop <= sizes[part.speaker] for part in parts)
        if not inside or sum(part.stop - part.start for part in parts) > sum(sizes):
            raise ValueError("its chunks are not of its speakers' segments")
        return self

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


class FinishedRequest(_Wire, Packed):
    """A client's request to the collector: which outputs exist already, since only the fleet sees them."""

    wanted: dict[str, str]
    """Output -> content key."""


class FinishedResponse(_Wire, Packed):
    """The collector's response, from the records; wanted outputs that are in neither list are missing."""

    finished: list[str] = []
    changed: list[str] = []
    """Outputs that were generated with another key."""
    error: str = ""
    """Why the collector could not read the records, if it could not."""


def schema_of(message: object) -> int:
    """The version of the wire format that a chunk's message claims; `WrongSchema` if it claims none."""
    version = message.get("schema_version") if isinstance(message, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < 1_000_000:
        raise WrongSchema(f"a chunk's message names no schema version (this worker reads version {SCHEMA})")
    return version


def read_chunk(message: dict[str, Any]) -> ChunkMessage:
    """The message as values; `WrongSchema` where it is not what its version says."""
    try:
        return ChunkMessage.model_validate(message)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise WrongSchema(f"a chunk's message is not of schema version {SCHEMA}: {place}: {first['msg']}") from None
