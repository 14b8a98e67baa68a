"""How far a batch and its chunks have come, as values; `batches.BatchStore` keeps them in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from cloner.errors import Damaged, UnknownBatch, one_line
from cloner.protocol.results import BatchResult, ErrorRateResult, SegmentResult
from cloner.state.damage import integer, unpacking

MOST_REVIEWS = 32
"""Takes that are with the reviewers, or wait for them, at once, of one batch: their samples are in Redis."""


class BatchState(StrEnum):
    """How far a batch has come."""

    SUBMITTING = "submitting"
    """It is in Redis; the collector has not opened it yet."""
    RUNNING = "running"
    DONE = "done"
    """Its result is there."""
    BROKEN = "broken"
    """It could not be opened or closed."""

    @property
    def is_open(self) -> bool:
        return self in (BatchState.SUBMITTING, BatchState.RUNNING)


@dataclass(slots=True)
class ChunkProgress:
    """What is finished of a chunk."""

    generated: int = 0
    failed: int = 0
    frames: int = 0
    samples: int = 0
    finished: bool = False
    error: str = ""
    """Why the record could not be kept, if that has ended the last run."""
    runs: int = 0
    """Runs that its journal had when the last one reported, that one included."""
    given_up: bool = False
    """Whether its message is in the dead-letter list, since it has killed its workers before a run could begin."""
    attempts_again: int = 0
    """Attempts after the first at its finished segments, or at pieces of them."""
    suspects: int = 0
    """Of the generated segments, those that may have gone wrong."""

    @property
    def is_ended_for_good(self) -> bool:
        """Whether it is not published again: its record could not be kept, or it is given up."""
        return bool(self.error) or self.given_up

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        from cloner.audio import SAMPLE_RATE  # loads numpy, which a launcher does not need

        return self.samples / SAMPLE_RATE

    def add(self, result: SegmentResult) -> None:
        """Count a segment."""
        from cloner.audio import SAMPLE_RATE

        self.generated += result.generated
        self.failed += not result.generated
        self.frames += result.frames
        self.samples += round(result.audio_s * SAMPLE_RATE)
        self.attempts_again += result.attempts_again
        self.suspects += result.is_suspect

    def pack(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, data: bytes | str) -> Self:
        """The value that `pack` made. Raises what is in `damage.UNREADABLE`."""
        values = json.loads(data)
        counts = {name: integer(values[name]) for name in ("generated", "failed", "frames", "samples")}
        return cls(
            **counts,
            finished=bool(values["finished"]),
            error=one_line(str(values.get("error", ""))),
            runs=integer(values.get("runs", 0)),
            given_up=bool(values.get("given_up", False)),
            attempts_again=integer(values.get("attempts_again", 0)),
            suspects=integer(values.get("suspects", 0)),
        )


@dataclass(frozen=True, slots=True)
class Round:
    """One publication of a batch's chunks, or of takes to be reviewed. Another follows if segments have no line in the
    record at its end, and as long as takes are to be reviewed or spoken again."""

    number: int = 0
    chunks: tuple[int, ...] | None = None
    """Numbers of the chunks that are published; None for all."""
    missing: int = 0
    """Segments that had no line when it began; 0 in the first. It and `fruitless` stay as they are during a review: its
    rounds are not about segments without a line."""
    fruitless: int = 0
    """How many rounds before it, one after another, have added no line."""
    again: bool = False
    """Whether its chunks speak takes again that have failed the review."""
    reviews: int = 0
    """Takes and references that it sends to the reviewers, at most `MOST_REVIEWS`, in place of chunks."""
    reviewed: int = 0
    """Takes of the batch that were reviewed when it began, of so many `to_review`."""
    to_review: int = 0
    windows_since: int = 0
    """Number of the first of the rounds of reviews that have followed each other, up to this one."""
    waits: bool = False
    """Whether it sends nothing: its takes are to be reviewed, and those of other batches come first."""

    @property
    def is_review(self) -> bool:
        """Whether it is part of a review, and has no chunks."""
        return self.waits or self.reviews > 0

    def pack(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The value that `pack` made. Raises what is in `damage.UNREADABLE`."""
        values = json.loads(data)
        chunks = values["chunks"]
        return cls(
            number=integer(values["number"]),
            chunks=None if chunks is None else tuple(map(integer, chunks)),
            missing=integer(values["missing"]),
            fruitless=integer(values["fruitless"]),
            again=bool(values.get("again", False)),
            **{name: integer(values.get(name, 0)) for name in ("reviews", "reviewed", "to_review", "windows_since")},
            waits=bool(values.get("waits", False)),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a batch."""

    batch_id: str
    state: BatchState
    total: int
    chunks: int
    generated: int
    failed: int
    frames: int
    audio_s: float
    chunks_finished: int
    cancelled: bool
    round: Round = Round()
    error: str = ""
    """Why the batch is broken, if it is."""
    attempts_again: int = 0
    suspects: int = 0
    """When the batch is closed, with those that fail a review."""
    error_rate: ErrorRateResult | None = None
    """As its review estimates it, when the batch is closed."""
    source: str = ""
    """As in `Submission`."""

    @classmethod
    def unpack(cls, batch_id: str, values: Mapping[bytes, bytes], chunks: Iterable[bytes]) -> Self:
        """What Redis holds of a batch and its chunks. Raises what is in `damage.UNREADABLE`."""
        counts = [ChunkProgress.unpack(chunk) for chunk in chunks]
        suspects, error_rate = unpack_closing(values.get(b"suspects"), values.get(b"error_rate"))
        return cls(
            batch_id=batch_id,
            state=BatchState(values[b"state"].decode(errors="replace")),
            total=integer(values[b"total"]),
            chunks=integer(values[b"chunks"]),
            generated=sum(chunk.generated for chunk in counts),
            failed=sum(chunk.failed for chunk in counts),
            frames=sum(chunk.frames for chunk in counts),
            audio_s=sum(chunk.audio_s for chunk in counts),
            chunks_finished=sum(chunk.finished for chunk in counts),
            cancelled=b"cancelled" in values,
            round=Round.unpack(values[b"round"]) if b"round" in values else Round(),
            error=one_line(values.get(b"error", b"").decode(errors="replace")),
            attempts_again=sum(chunk.attempts_again for chunk in counts),
            suspects=sum(chunk.suspects for chunk in counts) if suspects is None else suspects,
            error_rate=error_rate,
            source=one_line(values.get(b"source", b"").decode(errors="replace")),
        )

    @property
    def finished(self) -> int:
        """Segments that were generated or failed."""
        return self.generated + self.failed

    @property
    def reviewing(self) -> str:
        """How far the review is, in words; empty if none is under way or waits."""
        reviewed, to_review = self.round.reviewed, self.round.to_review
        if self.round.waits:
            left = to_review - reviewed
            return f"waits for its review ({left} take{'s' if left != 1 else ''})"
        return f"reviewing {reviewed} of {to_review}" if self.round.reviews else ""

    @property
    def all_chunks_finished(self) -> bool:
        return self.chunks_finished >= self.chunks

    @property
    def closed(self) -> bool:
        """Whether the batch has reached its end: its result is there, or never will be."""
        return not self.state.is_open

    @property
    def status(self) -> str:
        """The state in words for people: a batch that is cancelled is "cancelling" until it is closed."""
        if not self.cancelled or self.state is BatchState.BROKEN:
            return str(self.state)
        return "cancelled" if self.closed else "cancelling"


def read_progress(batch_id: str, values: Any, chunks: Any) -> Progress | UnknownBatch | Damaged:
    """What the replies of Redis say of a batch, of which each may be an error. Raises other errors than `Damaged`."""
    try:
        with unpacking(batch_id):
            for reply in (values, chunks):
                if isinstance(reply, Exception):
                    raise reply
            if b"total" in values:
                return Progress.unpack(batch_id, values, chunks)
    except Damaged as error:
        return error
    # A late field of a batch that has expired is no batch.
    return UnknownBatch(
        f"no batch {batch_id} is known: ids are printed by `cloner submit`, and kept for CLONER_BATCH_TTL_S;"
        " if Redis has lost it, submit its file again: only what is missing is spoken"
    )


def closing_fields(result: BatchResult) -> dict[Any, Any]:
    """What is noted of a batch when it is closed; `unpack_closing` reads what is new."""
    rate = result.review.error_rate
    return {
        "state": BatchState.DONE,
        "suspects": len(result.suspects),
        "error_rate": rate.model_dump_json() if rate else "",
    }


def unpack_closing(suspects: bytes | None, rate: bytes | None) -> tuple[int | None, ErrorRateResult | None]:
    """The number of suspects, None before the close, and the estimated error rate, if there is one. Raises what is in
    `damage.UNREADABLE`."""
    return (
        integer(suspects) if suspects is not None else None,
        ErrorRateResult.model_validate_json(rate) if rate else None,
    )


@dataclass(frozen=True, slots=True)
class Submission:
    """What was noted when a batch was submitted."""

    source: str
    """Name of the batch's file, and whether it is a redo or another part of that."""
    speakers: int
    submitted_at: float
    """Seconds since the epoch, by Redis's clock; 0 if the batch has expired."""
    strategy: str
