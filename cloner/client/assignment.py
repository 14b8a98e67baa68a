"""Who speaks what: dealing speakers to workers and cutting what each was dealt into chunks. Pure.

Speakers are known here by their place in the batch, segments by their place in their speaker.


Dealing a batch over a fleet: which worker speaks what, in chunks that are ready to travel.

`plan.py` decides by places alone; here its shares meet the speakers and the workers' queues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cloner.batch import Batch
from cloner.events import Event, LogLine
from cloner.names import QueueNames
from cloner.protocol.messages import ChunkRow, PartRow
from cloner.state.registry import WorkerInfo

CHUNK_FILLS = 8
"""A chunk holds this many segments a slot: fewer leave slots idle at its end, more cost little (spec, "Chunks")."""


class Strategy(StrEnum):
    """How speakers are dealt to workers."""

    ROUND_ROBIN = "round-robin"
    LONGEST_FIRST = "longest-first"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class SpeakerSlice:
    """Segments ``start:stop`` of one speaker."""

    speaker: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Assignment = tuple[SpeakerSlice, ...]
"""What one worker was dealt, in order."""


def round_robin(sizes: Sequence[int], workers: int) -> list[Assignment]:
    """Worker i gets speakers i, i+W, i+2W ... of `sizes` (segments a speaker)."""
    whole = [SpeakerSlice(speaker, 0, size) for speaker, size in enumerate(sizes)]
    return [tuple(whole[worker::workers]) for worker in range(workers)]


def longest_first(amounts: Sequence[Sequence[int]], workers: int) -> list[Assignment]:
    """Largest speaker first, each to the least loaded worker, by `amounts` (of text, a segment).

    A speaker with more than a fair share is cut into runs of at most a share (or of one text), dealt like speakers.
    """
    fair = sum(map(sum, amounts)) / workers
    pieces = [piece for speaker, texts in enumerate(amounts) for piece in _split_by_amount(speaker, texts, fair)]
    weights = {piece: sum(amounts[piece.speaker][piece.start : piece.stop]) for piece in pieces}
    loads = [0] * workers
    dealt: list[list[SpeakerSlice]] = [[] for _ in range(workers)]
    for piece in sorted(pieces, key=lambda piece: -weights[piece]):
        worker = loads.index(min(loads))
        loads[worker] += weights[piece]
        dealt[worker].append(piece)
    return [tuple(_joined(parts)) for parts in dealt]


def cut(share: Assignment, slots: int) -> list[Assignment]:
    """Cut a share into chunks of whole speakers with at least `CHUNK_FILLS` segments a slot.

    A speaker bigger than that is split. One slot gains nothing from company: it gets one speaker a chunk.
    """
    if slots == 1:
        return [(part,) for part in share]
    limit = CHUNK_FILLS * slots
    chunks: list[Assignment] = []
    chunk: list[SpeakerSlice] = []
    for part in share:
        for start in range(part.start, part.stop, limit):
            chunk.append(SpeakerSlice(part.speaker, start, min(start + limit, part.stop)))
            if sum(map(len, chunk)) >= limit:
                chunks.append(tuple(chunk))
                chunk = []
    if chunk:
        chunks.append(tuple(chunk))
    return chunks


def _split_by_amount(speaker: int, texts: Sequence[int], fair: float) -> Iterator[SpeakerSlice]:
    """The speaker's texts in runs of a fair share, and what is left over; one run if it is within its share."""
    start, amount = 0, 0
    for place, text in enumerate(texts):
        if amount and amount + text > fair:
            yield SpeakerSlice(speaker, start, place)
            start, amount = place, 0
        amount += text
    yield SpeakerSlice(speaker, start, len(texts))


def _joined(parts: list[SpeakerSlice]) -> Iterator[SpeakerSlice]:
    """Parts in the batch's order, neighbouring runs of one speaker made one."""
    pending: SpeakerSlice | None = None
    for part in sorted(parts, key=lambda part: (part.speaker, part.start)):
        if pending and pending.speaker == part.speaker and pending.stop == part.start:
            pending = SpeakerSlice(part.speaker, pending.start, part.stop)
            continue
        if pending:
            yield pending
        pending = part
    if pending:
        yield pending


@dataclass(frozen=True)
class AssignmentSummary:
    """What one worker was dealt of a batch: speakers in order, and the number of texts."""

    worker: WorkerInfo
    speakers: tuple[str, ...]
    texts: int

    def __str__(self) -> str:
        return self.line().strip()

    def line(self) -> LogLine:
        """The assignment as a log line."""
        index, speakers, ids = self.worker.index, len(self.speakers), ", ".join(self.speakers)
        return Event.WORKER_ASSIGNMENT.line(index=index, speakers=speakers, ids=ids, texts=self.texts)


def assign(
    batch: Batch, workers: Sequence[WorkerInfo], strategy: Strategy, queues: QueueNames
) -> tuple[list[ChunkRow], list[AssignmentSummary]]:
    """The batch's chunks, and what each worker was dealt: nothing yet, if all share one queue."""
    if strategy is Strategy.SHARED:
        return _shared_chunks(batch, workers, queues.shared_queue()), []
    if strategy is Strategy.LONGEST_FIRST:
        amounts = [[len(segment.text) for segment in speaker.segments] for speaker in batch.speakers]
        shares = longest_first(amounts, len(workers))
    else:
        shares = round_robin([len(speaker.segments) for speaker in batch.speakers], len(workers))
    return _dealt_chunks(shares, workers), _assignments(batch, shares, workers)


def _dealt_chunks(shares: Sequence[Assignment], workers: Sequence[WorkerInfo]) -> list[ChunkRow]:
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


def _assignments(batch: Batch, shares: Sequence[Assignment], workers: Sequence[WorkerInfo]) -> list[AssignmentSummary]:
    assignments = []
    for share, worker in zip(shares, workers, strict=True):
        speakers = tuple(dict.fromkeys(batch.speakers[part.speaker].id for part in share))
        if speakers:
            assignments.append(AssignmentSummary(worker, speakers, sum(map(len, share))))
    return assignments
