"""The result of a segment and of a batch, and the JSON that a run prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from cloner.batch import Review
from cloner.errors import one_line
from cloner.protocol.packing import Packed

MAX_LEFTOVER = 100

Line = Annotated[str, AfterValidator(one_line)]
"""A text that is shown: one line without control characters, also if other programs have written it."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class Attempt:
    """One try of the model at one piece of a segment, and what the checks say of it."""

    piece: int
    """Its place in the segment, from 0; 0 too where the segment is one piece."""
    number: int
    """From 1; each has a seed of its own."""
    seed: int
    seconds: float
    """Of its audio, as the model made it."""
    failed: dict[str, float]
    """Check that failed -> its score; empty if none did."""
    kept: bool
    """Whether the segment's audio has it."""
    file: str = ""
    """Name of its audio in ``.cloner/BATCH_ID/attempts/``; empty where none is there."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class SegmentResult:
    """The result of one segment: a line of the record. `code` is empty if it was generated.

    A dataclass with slots, since a record may have a million lines: a pydantic model takes three times the memory.
    """

    segment: int
    speaker: str
    output: str
    key: str
    """Content key: equal exactly where the same audio would be generated again."""
    assignment: int
    worker: str
    frames: int = 0
    audio_s: float = 0.0
    size: int = 0
    """Bytes of the audio file."""
    mtime_ns: int = 0
    """Time of its last change, nanoseconds since the epoch, by its file system's clock."""
    digest: str = ""
    """BLAKE2b of its bytes, 32 hexadecimal digits. Lines of version 0.1 have none."""
    code: str = ""
    message: str = ""
    reused: bool = False
    """Whether an earlier batch generated it."""
    take: int = 1
    """The take's number, from 1: each `cloner redo` of a segment counts on."""
    seed: int = 0
    """Of the first attempt at a take after the first; that of the first take follows from the batch, and is 0 here."""
    attempts: Sequence[Attempt] = ()
    """All attempts at those of its pieces at which one failed a check; none otherwise, so that lines stay short."""
    suspicion: float = 0.0
    """The largest score of a check of what was kept, divided by the check's limit; above 1, the segment is a suspect. 0
    where it was not checked."""

    @property
    def generated(self) -> bool:
        return not self.code

    @property
    def is_suspect(self) -> bool:
        """Whether it was generated, and may have gone wrong."""
        return self.generated and self.suspicion > 1

    @property
    def attempts_again(self) -> int:
        """Attempts after the first at the segment, or at a piece of it."""
        return sum(attempt.number > 1 for attempt in self.attempts)

    @property
    def failed_checks(self) -> list[str]:
        """Names of the checks that attempts failed which were kept, in order."""
        return sorted({name for attempt in self.attempts if attempt.kept for name in attempt.failed})

    def to_json(self) -> bytes:
        """The line, without its end."""
        return _LINES.dump_json(self, exclude={name for name in ("attempts", "suspicion") if not getattr(self, name)})

    @staticmethod
    def from_json(line: bytes) -> SegmentResult:
        """The result in a line. Raises `ValidationError`."""
        return _LINES.validate_json(line)


_LINES = TypeAdapter(SegmentResult)


def most_attempts(lines: Iterable[SegmentResult]) -> int:
    """The most attempts in its chunk at a piece of a segment; `lines` are those of its takes."""
    return max((attempt.number for line in lines for attempt in line.attempts), default=1)


class SegmentError(BaseModel):
    """Why a segment has no audio: a short code for programs and a sentence for people."""

    model_config = ConfigDict(frozen=True)

    speaker: Line
    output: Line
    code: Line
    message: Line


class Suspect(BaseModel):
    """A segment that was generated, and of which the best attempt fails a check."""

    model_config = ConfigDict(frozen=True)

    speaker: Line
    output: Line
    failed: list[Line]
    """Names of the checks."""


class SpeakerResult(BaseModel):
    """The result of one speaker."""

    model_config = ConfigDict(frozen=True)

    texts: int
    generated: int
    failed: int
    """Includes texts that were never generated, as after a cancellation."""
    audio_s: float


class ErrorRateResult(BaseModel):
    """The share of a batch's segments with audio that have gone wrong, 0 to 1, as the batch is delivered.

    Segments that were reviewed, and suspects, count as they are at the end; the others as those of the random sample
    were when they were first reviewed.
    """

    model_config = ConfigDict(frozen=True)

    estimate: float
    low: float
    """The rate is between `low` and `high` for 95% of batches."""
    high: float
    sampled: int
    """Segments of the random sample that it is estimated from."""


class ReviewResult(BaseModel):
    """What the review of a batch's takes has come to."""

    model_config = ConfigDict(frozen=True)

    mode: Review = "none"
    """Which takes were to be reviewed."""
    state: Literal["none", "complete", "incomplete"] = "none"
    """Incomplete where the batch was closed before: no reviewer was alive, or it was cancelled."""
    reviewed: int = 0
    """Segments whose audio was reviewed."""
    failed: int = 0
    """Those of them that fail it at last; they are among the suspects."""
    not_reviewed: int = 0
    """Segments that were to be reviewed and were not."""
    words_not_compared: int = 0
    """Segments that were reviewed, and whose words were not all compared with their text: there was no recogniser of
    their language, or they are long, and only those of their beginning were."""
    unknown_language: int = 0
    """Those of them whose text is of a language that the recogniser does not know."""
    spoken_again: int = 0
    """Segments that failed it and were spoken again, once or more, whichever of their takes has stayed."""
    error_rate: ErrorRateResult | None = None


class BatchResult(Packed):
    """The result of a batch. `results` and `errors` together have every segment index once."""

    model_config = ConfigDict(frozen=True)

    batch_id: Line
    source: Line = ""
    """Name of the batch's file."""
    total: int
    generated: int
    failed: int
    cancelled: bool
    out_dir: Line
    """The output root as the fleet sees it; outputs are relative to it."""
    results: dict[int, Line]
    errors: dict[int, SegmentError]
    suspects: dict[int, Suspect] = Field(default_factory=dict)
    """Of the segments in `results`, those that may have gone wrong."""
    review: ReviewResult = ReviewResult()
    reused: int = 0
    """Segments in `results` that earlier batches had generated."""
    submitted_at: float = 0.0
    """Seconds since the epoch, by Redis's clock."""
    elapsed_s: float
    """From submission until the collector made this result."""
    audio_s: float
    reused_audio_s: float = 0.0
    """Seconds of `audio_s` that earlier batches had generated."""
    frames: int
    workers: dict[Line, int]
    """Segments that each worker generated."""
    leftover: list[Line] = Field(default_factory=list)
    """Files of earlier versions of the batch that this one does not name, at most `MAX_LEFTOVER`."""
    leftover_total: int = 0
    """How many there were."""
    pruned: bool = False
    """Whether they were removed."""
    speakers: dict[Line, SpeakerResult] = Field(default_factory=dict)
    """In the order of the batch."""
    engine: Line = ""
    fingerprint: Line = ""
    """Engine and checkpoint (`content_key.fingerprint`) of the workers that it was assigned to."""

    def to_json(self) -> str:
        """One line of JSON."""
        return self.model_dump_json()
