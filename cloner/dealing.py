"""Dealing a batch over a fleet: which worker speaks what, in chunks that are ready to travel.

`plan.py` decides by places alone; here its shares meet the speakers and the workers' queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloner.batch import Batch
from cloner.fleet import WorkerInfo
from cloner.plan import Share, Strategy, cut, longest_first, round_robin
from cloner.queues import Names
from cloner.wire import ChunkRow, PartRow


@dataclass(frozen=True)
class Assignment:
    """What one worker was dealt of a batch: speakers in order, and the number of texts."""

    worker: WorkerInfo
    speakers: tuple[str, ...]
    texts: int

    def __str__(self) -> str:
        ids = ", ".join(self.speakers)
        return f"Worker {self.worker.index}: {len(self.speakers)} speakers (IDs: [{ids}]), {self.texts} texts"


def deal(
    batch: Batch, workers: Sequence[WorkerInfo], strategy: Strategy, names: Names
) -> tuple[list[ChunkRow], list[Assignment]]:
    """The batch's chunks, and what each worker was dealt: nothing yet, if all share one queue."""
    if strategy is Strategy.SHARED:
        return _shared_chunks(batch, workers, names.shared_queue()), []
    if strategy is Strategy.LONGEST_FIRST:
        amounts = [[len(segment.text) for segment in speaker.segments] for speaker in batch.speakers]
        shares = longest_first(amounts, len(workers))
    else:
        shares = round_robin([len(speaker.segments) for speaker in batch.speakers], len(workers))
    return _dealt_chunks(shares, workers), _assignments(batch, shares, workers)


def _dealt_chunks(shares: Sequence[Share], workers: Sequence[WorkerInfo]) -> list[ChunkRow]:
    """Each worker's share, cut into chunks for its own queue and counted together."""
    rows: list[ChunkRow] = []
    for assignment, (share, worker) in enumerate(zip(shares, workers, strict=True)):
        places: dict[int, int] = {}
        texts: dict[int, int] = {}
        for part in share:
            places.setdefault(part.speaker, len(places) + 1)
            texts[part.speaker] = texts.get(part.speaker, 0) + len(part)
        for chunk in cut(share, worker.slots):
            parts = [
                PartRow(
                    speaker=part.speaker,
                    start=part.start,
                    stop=part.stop,
                    place=places[part.speaker],
                    texts=texts[part.speaker],
                )
                for part in chunk
            ]
            rows.append(
                ChunkRow(
                    number=len(rows),
                    queue=worker.queue,
                    assignment=assignment,
                    speakers=len(places),
                    texts=sum(texts.values()),
                    shared=False,
                    parts=parts,
                )
            )
    return rows


def _shared_chunks(batch: Batch, workers: Sequence[WorkerInfo], queue: str) -> list[ChunkRow]:
    """Chunks that whoever is free takes, counted together."""
    sizes = [len(speaker.segments) for speaker in batch.speakers]
    (share,) = round_robin(sizes, 1)
    rows: list[ChunkRow] = []
    for number, chunk in enumerate(cut(share, max(worker.slots for worker in workers))):
        parts = [
            PartRow(
                speaker=part.speaker,
                start=part.start,
                stop=part.stop,
                place=part.speaker + 1,
                texts=sizes[part.speaker],
            )
            for part in chunk
        ]
        rows.append(
            ChunkRow(
                number=number,
                queue=queue,
                assignment=0,
                speakers=len(sizes),
                texts=sum(sizes),
                shared=True,
                parts=parts,
            )
        )
    return rows


def _assignments(batch: Batch, shares: Sequence[Share], workers: Sequence[WorkerInfo]) -> list[Assignment]:
    assignments = []
    for share, worker in zip(shares, workers, strict=True):
        speakers = tuple(dict.fromkeys(batch.speakers[part.speaker].id for part in share))
        if speakers:
            assignments.append(Assignment(worker, speakers, sum(map(len, share))))
    return assignments
