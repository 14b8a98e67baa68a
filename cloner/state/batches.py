"""How far a batch is, read from Redis: one small field a chunk.

What is finished of a chunk, in figures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from redis import Redis

from cloner.audio import SAMPLE_RATE
from cloner.errors import Damaged, UnknownBatch, reason_of
from cloner.names import Names
from cloner.protocol.results import SegmentResult


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a batch."""

    batch_id: str
    state: str
    """"submitting", "running", "done", or "broken" where it could not be opened or closed."""
    total: int
    chunks: int
    generated: int
    failed: int
    frames: int
    audio_s: float
    chunks_finished: int
    cancelled: bool
    error: str = ""
    """Why the batch is broken, if it is."""

    @property
    def finished(self) -> int:
        """Segments that were generated or failed."""
        return self.generated + self.failed

    @property
    def all_chunks_finished(self) -> bool:
        return self.chunks_finished >= self.chunks

    @property
    def closed(self) -> bool:
        """Whether nothing more will come: the batch's result is there, or never will be."""
        return self.state in ("done", "broken")


def read_progress(redis: Redis, names: Names, batch_id: str) -> Progress:
    """How far the batch is; `redis` must decode responses. Raises `UnknownBatch`, `Damaged`."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(names.batch(batch_id))
        pipe.hvals(names.progress(batch_id))
        batch, chunks = pipe.execute()
    if "total" not in batch:  # a late word about a batch that has expired is no batch
        raise UnknownBatch(
            f"no batch {batch_id} is known: ids are printed by `cloner submit`, and kept for CLONER_BATCH_TTL_S; if"
            " Redis has lost it, submit its file again: only what is missing is spoken"
        )
    try:
        counts = [json.loads(chunk) for chunk in chunks]
        return Progress(
            batch_id=batch_id,
            state=batch["state"],
            total=int(batch["total"]),
            chunks=int(batch["chunks"]),
            generated=sum(chunk[0] for chunk in counts),
            failed=sum(chunk[1] for chunk in counts),
            frames=sum(chunk[2] for chunk in counts),
            audio_s=sum(chunk[3] for chunk in counts),
            chunks_finished=sum(chunk[4] for chunk in counts),
            cancelled="cancelled" in batch,
            error=batch.get("error", ""),
        )
    except (ValueError, TypeError, LookupError) as error:
        raise Damaged(f"what Redis holds of batch {batch_id} makes no sense ({reason_of(error)})") from error


@dataclass
class Tally:
    """Reported in absolute figures: a chunk that runs twice counts once."""

    generated: int = 0
    failed: int = 0
    frames: int = 0
    samples: int = 0
    finished: bool = False

    def add(self, result: SegmentResult) -> None:
        """Count a segment."""
        self.generated += result.generated
        self.failed += not result.generated
        self.frames += result.frames
        self.samples += round(result.audio_s * SAMPLE_RATE)

    def to_json(self) -> str:
        return json.dumps(
            [self.generated, self.failed, self.frames, round(self.samples / SAMPLE_RATE, 3), self.finished]
        )
