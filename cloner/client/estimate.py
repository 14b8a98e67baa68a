"""What is left to generate of a batch before anything runs, and about how long that will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.batch import Batch
from cloner.client.causes import Cause
from cloner.client.texts import split_segments, unspeakable_texts
from cloner.errors import Problem
from cloner.protocol.messages import ChunkRow
from cloner.state.registry import WorkerInfo
from cloner.state.throughput import duration
from cloner.text.length import estimated_frames, is_speakable, is_split

T = TypeVar("T")

SHOWN = 5
"""Most segments that are named of those that are split, or cannot be spoken."""

COLUMNS = ("Speaker", "Done", "Changed", "Missing")


@dataclass(frozen=True)
class Counts:
    """Segments that are done, that were generated from other inputs (`changed`), and that are missing."""

    done: int = 0
    changed: int = 0
    missing: int = 0

    @property
    def left(self) -> int:
        """Segments that are left to generate."""
        return self.changed + self.missing


@dataclass(frozen=True)
class Named(Generic[T]):
    """How many things there are, and the first of them: a batch may have a million."""

    count: int = 0
    first: Sequence[T] = ()

    @classmethod
    def of(cls, things: Iterator[T]) -> Named[T]:
        first = tuple(islice(things, SHOWN))
        return cls(len(first) + sum(1 for _ in things), first)


@dataclass(frozen=True)
class Estimate:
    """What submitting a batch now would generate."""

    speakers: dict[str, Counts]
    """By speaker id, in the batch's order."""
    audio_s: float
    """Seconds of audio that are left to generate, estimated from the lengths of the texts."""
    seconds: float | None = None
    """Seconds that the fleet would take at its measured speed; None if no speed was measured yet."""
    split: Named[int] = Named()
    """Segments whose texts are generated in pieces."""
    unspeakable: Named[Problem] = Named()
    """Texts that cannot be spoken, and fail alone."""
    causes: Sequence[Cause] = ()
    """Why outputs that are there are generated again, where that is known."""

    @property
    def total(self) -> Counts:
        """All speakers together."""
        counts = self.speakers.values()
        return Counts(sum(c.done for c in counts), sum(c.changed for c in counts), sum(c.missing for c in counts))

    def rows(self) -> list[tuple[str, ...]]:
        """The `COLUMNS` of each speaker, and of all speakers together."""
        counts = [*self.speakers.items(), ("total", self.total)]
        return [(speaker, str(c.done), str(c.changed), str(c.missing)) for speaker, c in counts]

    def notes(self) -> list[str]:
        """Lines about outputs that are there and are generated again, about the texts that are split, and about each of
        the first texts that cannot be spoken."""
        lines = [str(cause) for cause in self.causes]
        if self.split.count:
            more = ", ..." if self.split.count > len(self.split.first) else ""
            named = ", ".join(map(str, self.split.first)) + more
            segments = "segment" if self.split.count == 1 else "segments"
            lines.append(f"Texts that are split into pieces: {self.split.count} ({segments} {named})")
        if self.unspeakable.count:
            lines.append(f"Texts that cannot be spoken: {self.unspeakable.count}")
            lines += [f"  {problem}" for problem in self.unspeakable.first]
        return lines

    def __str__(self) -> str:
        segments = self.total.left - self.unspeakable.count
        if segments <= 0:
            return "Nothing is left to generate"
        some = "1 segment is" if segments == 1 else f"{segments} segments are"
        left = f"{some} left to generate, about {duration(self.audio_s)} of audio"
        if self.seconds is None:
            return f"{left}; no speed was measured yet"
        return f"{left}; that takes about {duration(self.seconds)} at the measured speed"


def estimate(
    batch: Batch,
    finished: Collection[str],
    changed: Collection[str],
    chunks: Sequence[ChunkRow] = (),
    workers: Sequence[WorkerInfo] = (),
) -> Estimate:
    """Count segments, and compute the time of the slowest of `workers`, to which `chunks` are assigned.

    `finished` and `changed` are outputs. A worker whose speed was not measured yet counts as one of average speed.
    """
    finished, changed = set(finished), set(changed)
    speakers = {}
    left: list[list[float]] = []
    for speaker in batch.speakers:
        outputs = [segment.output for segment in speaker.segments]
        states = Counter("done" if o in finished else "changed" if o in changed else "missing" for o in outputs)
        speakers[speaker.id] = Counts(states["done"], states["changed"], states["missing"])
        left.append([0.0 if s.output in finished else _audio_s(s.text, batch) for s in speaker.segments])
    return Estimate(
        speakers,
        sum(map(sum, left)),
        _seconds(left, chunks, workers),
        Named.of(split_segments(batch)),
        Named.of(unspeakable_texts(batch)),
    )


def _audio_s(text: str, batch: Batch) -> float:
    if not is_speakable(text):
        return 0.0
    frames = estimated_frames(text)
    if not is_split(text, batch.generation):
        frames = min(frames, batch.generation.max_new_tokens)
    return frames * FRAME_SAMPLES / SAMPLE_RATE


def _seconds(
    left: Sequence[Sequence[float]], chunks: Sequence[ChunkRow], workers: Sequence[WorkerInfo]
) -> float | None:
    """Seconds until the last worker is finished; `left` has the seconds of audio to generate by speaker and segment."""
    measured = {
        worker.queue: worker.spoken_s / worker.busy_s for worker in workers if worker.busy_s and worker.spoken_s
    }
    if not measured:
        return None
    average = sum(measured.values()) / len(measured)
    loads: defaultdict[str, float] = defaultdict(float)
    for chunk in chunks:
        loads[chunk.queue] += sum(sum(left[part.speaker][part.start : part.stop]) for part in chunk.slices)
    if loads.keys().isdisjoint(worker.queue for worker in workers):  # all take from the shared queue
        return sum(loads.values()) / sum(measured.get(worker.queue, average) for worker in workers)
    return max(load / measured.get(queue, average) for queue, load in loads.items())
