"""What travels between the processes of a fleet: the manifest of a batch, and the message of a chunk.

Both are JSON with a schema version. The manifest is the whole batch with its assignment to workers. The client puts it
into Redis and sends one message with the batch's id, so a batch is there as a whole or not at all; the collector makes
the chunks' messages from the manifest. References do not travel in messages: Redis holds them under their content hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cloner.batch import FEW_FIELDS, MAX_SEGMENTS, AudioOptions, Generation, Redo, ReferenceKind, Review, SpeechOptions
from cloner.errors import Damaged, WrongSchema, some_of
from cloner.names import SCHEMA
from cloner.protocol.fields import BatchId, Count, Digest, Index, Items, Language, Name, Queue, Text
from cloner.protocol.packing import Packed
from cloner.protocol.results import Line
from cloner.protocol.rows import SegmentRow, TakeRow
from cloner.validation import first_error

MAX_MESSAGE_BYTES = 16 * 1024**2
"""The longest message of Celery. Python's values take many times that, in Celery's process and in its child."""


class Wire(BaseModel):
    """What travels."""

    # Other fields are ignored: pydantic would collect an error for each, and an object may have millions.
    model_config = ConfigDict(frozen=True, extra="ignore")


class ReferenceRow(Wire):
    """A speaker's reference: the content hash under which Redis has it, and its transcript."""

    kind: ReferenceKind
    digest: Digest
    text: Text


class SpeakerRow(Wire):
    """A speaker of a manifest, with its segments."""

    id: Name
    reference: ReferenceRow
    segments: Items[SegmentRow]
    language: Language = ""
    """That of the texts, but for those in `other_languages`."""
    other_languages: Items[tuple[Index, Language]] = []
    """Segment index -> its text's language, where that is another one."""

    def language_of(self, segment: int) -> str:
        """The language of a segment's text; empty if it is not known."""
        return self._others.get(segment, self.language)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("_others", None)  # a copy may have other languages
        return copied

    @cached_property
    def _others(self) -> dict[int, str]:
        return dict(self.other_languages)


class SpeakerSliceRow(Wire):
    """Segments ``start:stop`` of the `speaker`-th speaker of the manifest."""

    speaker: Count
    start: Count
    stop: Count
    position: Count
    """The speaker's position in the assignment, from 1."""
    texts: Count
    """Texts of this speaker in the whole assignment."""


class ChunkRow(Wire):
    """A chunk, and the queue that it is sent to."""

    number: Count
    queue: Queue
    assignment: Count
    """Number of the assignment that the log counts: all chunks of one worker, or one chunk of the shared queue."""
    speakers: Count
    texts: Count
    """Speakers and texts in the whole assignment."""
    slices: Items[SpeakerSliceRow]


class SpeakerSegments(SpeakerRow):
    """A speaker in a chunk's message, with its segments in that chunk."""

    position: Count
    """As in `SpeakerSliceRow`, and so is `texts`."""
    texts: Count


class ChunkMessage(Wire):
    """All that a worker needs to generate a chunk, except for the references' bytes."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    batch_id: BatchId
    number: Count
    assignment: Count
    speakers: Count
    texts: Count
    generation: Generation
    audio: AudioOptions = AudioOptions()
    overwrite: bool = False
    """Whether files that the batch has not written may be replaced."""
    takes: Items[TakeRow] = []
    """Of the segments that are generated with another seed than their own."""
    slices: Items[SpeakerSegments]

    @property
    def total(self) -> int:
        """Segments in this chunk."""
        return sum(len(item.segments) for item in self.slices)

    def summary(self) -> str:
        """What Flower shows as the task's arguments: speakers and counts, never texts. Flower cuts it at the end."""
        speakers = some_of([item.id for item in self.slices], 8)
        return f"speakers [{speakers}], {self.total} texts, chunk {self.number} of batch {self.batch_id}"


def _own_version(version: int) -> int:
    if version != SCHEMA:
        # No `ValueError`: pydantic would go on, and list what else this version cannot read.
        raise Damaged(
            f"what Redis holds as a Manifest is of schema version {version}, and this process reads version {SCHEMA}: "
            "install one version on all boxes, and submit the batch again"
        )
    return version


class Manifest(Wire, Packed):
    """A batch, split into chunks that are assigned to queues. Raises `Damaged` if it is of another version."""

    schema_version: Annotated[int, AfterValidator(_own_version)] = SCHEMA
    batch_id: BatchId
    source: Annotated[Line, Field(max_length=4096)]
    """Name of the batch's file."""
    path: Annotated[Line, Field(max_length=4096)] = ""
    """The batch's file as its client sees it; empty for standard input, as such a batch is no version of another."""
    prefix: Annotated[Line, Field(max_length=4096)] = ""
    """The folder under the output root that all outputs begin with; empty if there is none."""
    overwrite: bool = False
    """Whether files that no version of this batch has written are replaced."""
    prune: bool = False
    """Whether files of earlier versions that this one does not name are removed, once nothing has failed."""
    partial: bool = False
    """Whether it is a part of a batch, so that files that it does not name are left alone."""
    redo: Redo | None = None
    """Not None if its segments are generated again, as other takes."""
    review: Review = "none"
    """Which of its takes are reviewed."""
    checkpoint_dir: Annotated[Line, Field(max_length=4096)] = ""
    """The checkpoint's folder, if the batch names it, as it does."""
    submitted_at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    generation: Annotated[Generation, FEW_FIELDS]
    audio: Annotated[AudioOptions, FEW_FIELDS] = AudioOptions()
    engine: str = ""
    fingerprint: str = ""
    """Engine and checkpoint of the workers that it was assigned to; the segments' content keys depend on both."""
    speakers: Items[SpeakerRow]
    chunks: Items[ChunkRow]
    ids: Items[tuple[Index, Name]] = []
    """Segment index -> the id that the batch gives it, of the segments that have one."""

    @model_validator(mode="after")
    def _check_slices(self) -> Self:
        """Each chunk is of these speakers' segments, and all chunks together have no more than the speakers."""
        slices = [row for chunk in self.chunks for row in chunk.slices]
        sizes = [len(speaker.segments) for speaker in self.speakers]
        if sum(sizes) > MAX_SEGMENTS:
            raise ValueError(f"it has more than {MAX_SEGMENTS} segments")
        inside = all(row.speaker < len(sizes) and row.start < row.stop <= sizes[row.speaker] for row in slices)
        if not inside or sum(row.stop - row.start for row in slices) > sum(sizes):
            raise ValueError("its chunks are not of its speakers' segments")
        return self

    @property
    def total(self) -> int:
        """Segments in the batch."""
        return sum(len(speaker.segments) for speaker in self.speakers)

    @property
    def title(self) -> str:
        """The name of the batch's file, and whether it is a redo or another part of that, for people."""
        kind = " (redo)" if self.redo else " (part)" if self.partial else ""
        return f"{self.source}{kind}"

    def drop_texts(self) -> None:
        """Forget the texts, more than half of the manifest's memory. Its chunks cannot be published from then on."""
        for speaker in self.speakers:
            speaker.segments[:] = [row._replace(text="") for row in speaker.segments]

    @property
    def speech(self) -> SpeechOptions:
        """What the segments' content keys depend on, besides the segments."""
        return SpeechOptions(
            generation=self.generation, audio=self.audio, engine=self.engine, fingerprint=self.fingerprint
        )

    def outputs(self) -> Iterator[str]:
        """The audio files of the batch, relative to the output root."""
        return (row.output for speaker in self.speakers for row in speaker.segments)

    def part(self, is_wanted: Callable[[SegmentRow], bool]) -> Manifest:
        """The batch with some of its segments alone, and without chunks."""
        ids = dict(self.ids)
        segments = ((speaker, row, ids.get(row.segment)) for speaker in self.speakers for row in speaker.segments)
        return part_of(self, (segment for segment in segments if is_wanted(segment[1])))

    def message(self, chunk: ChunkRow, takes: Mapping[int, TakeRow] = MappingProxyType({})) -> ChunkMessage:
        """The message of one of this batch's chunks; `takes` are those of some segments, by index."""
        slices = []
        for row in chunk.slices:
            speaker = self.speakers[row.speaker]
            segments = speaker.segments[row.start : row.stop]
            slices.append(
                SpeakerSegments(
                    id=speaker.id,
                    reference=speaker.reference,
                    segments=segments,
                    language=speaker.language,
                    other_languages=_others_of(speaker, segments),
                    position=row.position,
                    texts=row.texts,
                )
            )
        return ChunkMessage(
            batch_id=self.batch_id,
            number=chunk.number,
            assignment=chunk.assignment,
            speakers=chunk.speakers,
            texts=chunk.texts,
            generation=self.generation,
            audio=self.audio,
            overwrite=self.overwrite,
            takes=[takes[row.segment] for piece in slices for row in piece.segments if row.segment in takes],
            slices=slices,
        )


def _others_of(speaker: SpeakerRow, segments: Iterable[SegmentRow]) -> list[tuple[int, str]]:
    """The `other_languages` of some of a speaker's segments."""
    languages = ((row.segment, speaker.language_of(row.segment)) for row in segments if speaker.other_languages)
    return [(index, language) for index, language in languages if language != speaker.language]


def part_of(batch: Manifest, segments: Iterable[tuple[SpeakerRow, SegmentRow, str | None]]) -> Manifest:
    """The batch with these segments alone, each with its speaker and its id if it has one, and without chunks.

    A speaker's segments are next to each other. Of each speaker, the segments that it has besides do not count.
    """
    speakers: list[SpeakerRow] = []
    ids: list[tuple[int, str]] = []
    for speaker, row, segment_id in segments:
        if not speakers or speaker.id != speakers[-1].id:
            speakers.append(speaker.model_copy(update={"segments": [], "other_languages": []}))
        speakers[-1].segments.append(row)
        if (language := speaker.language_of(row.segment)) != speaker.language:
            speakers[-1].other_languages.append((row.segment, language))
        if segment_id is not None:
            ids.append((row.segment, segment_id))
    return batch.model_copy(update={"speakers": speakers, "chunks": [], "ids": ids})


def schema_of(message: object) -> int:
    """The version of the wire format that a chunk's message states. Raises `WrongSchema` if it states none."""
    version = message.get("schema_version") if isinstance(message, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < 1_000_000:
        raise WrongSchema(f"a chunk's message names no schema version (this worker reads version {SCHEMA})")
    return version


def read_chunk(message: dict[str, Any]) -> ChunkMessage:
    """The message as typed values. Raises `WrongSchema` if it is not of this version's form."""
    try:
        return ChunkMessage.model_validate(message)
    except ValidationError as error:
        raise WrongSchema(f"a chunk's message is not of schema version {SCHEMA}: {first_error(error)}") from None
