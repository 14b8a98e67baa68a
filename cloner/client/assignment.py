"""Assigning a batch's speakers to workers, and splitting each worker's assignment into chunks.

Pure functions. All but `assign` identify speakers by their place in the batch, and segments by their place in their
speaker; `assign` adds the speakers' ids and the workers' queues.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapreplace
from math import ceil

from cloner.batch import Batch
from cloner.errors import some_of
from cloner.events import Event, LogLine
from cloner.names import QueueNames
from cloner.protocol.messages import MAX_MESSAGE_BYTES, ChunkRow, SpeakerSliceRow
from cloner.state.registry import WorkerInfo

SEGMENTS_PER_SLOT = 32
"""Segments a slot that fill a chunk. Fewer leave slots idle at the end of each chunk, more so where attempts that fail
are made again there: in a simulation of 128 slots, lengths of 1:8 and 5% such attempts, they were occupied 87% of the
time with 8 segments a slot, 92% with 16 and 94% with 32; without attempts again 92%, 94% and 94%."""

ROUND_PART = 1.5
"""A chunk of the shared queue is an even part of what is left, divided by this: large chunks first, since retries leave
slots idle at each end, then smaller ones, which faster workers take more of (the *factoring* of Hummel, Schonberg and
Flynn, 1992, in rounds of one chunk a worker)."""

LAST_ROUND = 8
"""Segments a slot of an even part that is not divided any more."""

LEAST_SHARED = 4
"""Segments a slot of a chunk that is not in the last round, at least."""

MAX_CHUNK_BYTES = MAX_MESSAGE_BYTES * 3 // 8
"""JSON of a chunk's segments and references: a bigger chunk is split. In base64 it is half of the longest message."""


MOST_IDS = 100
"""Most speakers that the line about a worker's assignment names: a batch may have 100,000."""

ROW_BYTES = 200
"""More than what a row has besides its texts."""


class Strategy(StrEnum):
    """How speakers are assigned to workers."""

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
"""What one worker gets, in order; also a chunk of it."""


@dataclass(frozen=True)
class AssignmentSummary:
    """What one worker gets of a batch, as it is printed: speakers in order, and the number of texts."""

    worker: WorkerInfo
    speakers: tuple[str, ...]
    texts: int

    def __str__(self) -> str:
        return self.line().strip()

    def line(self) -> LogLine:
        """The assignment as a log line."""
        index, speakers, ids = self.worker.index, len(self.speakers), some_of(self.speakers, MOST_IDS)
        return Event.WORKER_ASSIGNMENT.line(index=index, speakers=speakers, ids=ids, texts=self.texts)


def assign(
    batch: Batch, workers: Sequence[WorkerInfo], strategy: Strategy, queues: QueueNames
) -> tuple[list[ChunkRow], list[AssignmentSummary]]:
    """The batch's chunks, and a summary for each worker that gets any; no summaries if all share one queue."""
    if strategy is Strategy.SHARED:
        return _shared_chunks(batch, workers, queues.shared_queue(), _json_sizes(batch)), []
    if strategy is Strategy.LONGEST_FIRST:
        amounts = [[len(segment.text) for segment in speaker.segments] for speaker in batch.speakers]
        assignments = longest_first(amounts, len(workers))
    else:
        assignments = round_robin([len(speaker.segments) for speaker in batch.speakers], len(workers))
    return _chunks(assignments, workers, _json_sizes(batch)), _summaries(batch, assignments, workers)


def round_robin(sizes: Sequence[int], workers: int) -> list[Assignment]:
    """Worker i gets speakers i, i+W, i+2W ... of `sizes` (segments a speaker)."""
    whole = [SpeakerSlice(speaker, 0, size) for speaker, size in enumerate(sizes)]
    return [tuple(whole[worker::workers]) for worker in range(workers)]


def longest_first(amounts: Sequence[Sequence[int]], workers: int) -> list[Assignment]:
    """Largest speaker first, each to the least loaded worker, by `amounts` (of text, a segment).

    A speaker with more than an even part of the whole is split into slices of at most that much (or of one text),
    which are assigned like speakers.
    """
    even = sum(map(sum, amounts)) / workers
    slices = [piece for speaker, texts in enumerate(amounts) for piece in _split_by_amount(speaker, texts, even)]
    weights = {piece: sum(amounts[piece.speaker][piece.start : piece.stop]) for piece in slices}
    loads = [(0, worker) for worker in range(workers)]  # a heap: of equal loads, the first worker's
    assigned: list[list[SpeakerSlice]] = [[] for _ in range(workers)]
    for piece in sorted(slices, key=lambda piece: -weights[piece]):
        load, worker = loads[0]
        heapreplace(loads, (load + weights[piece], worker))
        assigned[worker].append(piece)
    return [tuple(_joined(pieces)) for pieces in assigned]


def split_into_chunks(assignment: Assignment, slots: int) -> list[Assignment]:
    """Chunks of whole speakers, each with at least `SEGMENTS_PER_SLOT` segments a slot, but for the last.

    A bigger speaker is split. A worker with one slot gets one speaker a chunk: it generates one segment at a time.
    """
    if slots == 1:
        return [(piece,) for piece in assignment]
    limit = SEGMENTS_PER_SLOT * slots
    chunks: list[Assignment] = []
    chunk: list[SpeakerSlice] = []
    segments = 0
    for piece in _pieces(assignment, limit):
        chunk.append(piece)
        segments += len(piece)
        if segments >= limit:
            chunks.append(tuple(chunk))
            chunk, segments = [], 0
    if chunk:
        chunks.append(tuple(chunk))
    return chunks


def split_for_any_worker(assignment: Assignment, slots: int, workers: int) -> list[Assignment]:
    """Chunks for the shared queue, in rounds of one a worker, each round smaller than the one before; at most
    `SEGMENTS_PER_SLOT` segments a slot. One slot gets one speaker a chunk.

    A speaker is split only if it has more segments than a chunk may have, so rounds are exact only where speakers are
    small beside a chunk. Where they are not, chunks are less full than they may be, and more of them than workers make
    up for it in the last round.
    """
    chunks: list[list[SpeakerSlice]] = []
    left, limit, room = sum(map(len, assignment)), 0, 0
    is_last_round = False
    for speaker in assignment:
        start = speaker.start
        while start < speaker.stop:
            if slots == 1 or speaker.stop - start > room:
                if len(chunks) % workers == 0 and not is_last_round:
                    limit = _shared_limit(left / workers, slots)
                    is_last_round = limit * workers >= left
                chunks.append([])
                room = limit
            piece = SpeakerSlice(speaker.speaker, start, min(start + room, speaker.stop))
            chunks[-1].append(piece)
            start, room, left = piece.stop, room - len(piece), left - len(piece)
    return list(map(tuple, chunks))


def _shared_limit(even: float, slots: int) -> int:
    """Segments of a chunk at most, where each worker's even part of what is left is `even`."""
    if even <= LAST_ROUND * slots:
        return ceil(even)
    return min(SEGMENTS_PER_SLOT * slots, max(LEAST_SHARED * slots, ceil(even / ROUND_PART)))


def _pieces(assignment: Assignment, limit: int) -> Iterator[SpeakerSlice]:
    """The slices, each in pieces of at most `limit` segments."""
    for whole in assignment:
        for start in range(whole.start, whole.stop, limit):
            yield SpeakerSlice(whole.speaker, start, min(start + limit, whole.stop))


def split_by_size(chunk: Assignment, sizes: Sequence[Sequence[int]], limit: int = MAX_CHUNK_BYTES) -> list[Assignment]:
    """The chunk in parts of at most `limit` bytes, or of one segment. `sizes` are bytes, a speaker and segment."""
    parts: list[list[SpeakerSlice]] = [[]]
    room = limit
    for piece in chunk:
        start = piece.start
        for place in range(piece.start, piece.stop):
            size = sizes[piece.speaker][place]
            if size > room and (parts[-1] or place > start):
                if place > start:
                    parts[-1].append(SpeakerSlice(piece.speaker, start, place))
                parts.append([])
                start, room = place, limit
            room -= size
        parts[-1].append(SpeakerSlice(piece.speaker, start, piece.stop))
    return list(map(tuple, parts))


def _json_sizes(batch: Batch) -> list[list[int]]:
    """Bytes of each segment's row in a message, a speaker. The first one's row has the speaker's own."""
    sizes = []
    for speaker in batch.speakers:
        voice = len(json.dumps([speaker.id, speaker.reference.text])) + ROW_BYTES
        rows = [len(json.dumps([segment.text, segment.output])) + ROW_BYTES for segment in speaker.segments]
        sizes.append([rows[0] + voice, *rows[1:]] if rows else [])
    return sizes


def _split_by_amount(speaker: int, texts: Sequence[int], limit: float) -> Iterator[SpeakerSlice]:
    """The speaker's texts in slices of at most `limit`, unless one text alone is longer."""
    start, amount = 0, 0
    for place, text in enumerate(texts):
        if amount and amount + text > limit:
            yield SpeakerSlice(speaker, start, place)
            start, amount = place, 0
        amount += text
    yield SpeakerSlice(speaker, start, len(texts))


def _joined(slices: list[SpeakerSlice]) -> Iterator[SpeakerSlice]:
    """Slices in the batch's order; those of one speaker that follow each other become one."""
    pending: SpeakerSlice | None = None
    for piece in sorted(slices, key=lambda piece: (piece.speaker, piece.start)):
        if pending and pending.speaker == piece.speaker and pending.stop == piece.start:
            pending = SpeakerSlice(piece.speaker, pending.start, piece.stop)
            continue
        if pending:
            yield pending
        pending = piece
    if pending:
        yield pending


def _chunks(
    assignments: Sequence[Assignment], workers: Sequence[WorkerInfo], sizes: Sequence[Sequence[int]]
) -> list[ChunkRow]:
    """Chunks for each worker's own queue."""
    rows: list[ChunkRow] = []
    for number, (assignment, worker) in enumerate(zip(assignments, workers, strict=True)):
        chunks = [part for chunk in split_into_chunks(assignment, worker.slots) for part in split_by_size(chunk, sizes)]
        rows.extend(_rows(assignment, chunks, number, len(rows), worker.queue))
    return rows


def _shared_chunks(
    batch: Batch, workers: Sequence[WorkerInfo], queue: str, json_sizes: Sequence[Sequence[int]]
) -> list[ChunkRow]:
    """Chunks for the shared queue, enough for all workers. Each is an assignment of its own."""
    sizes = [len(speaker.segments) for speaker in batch.speakers]
    (whole,) = round_robin(sizes, 1)
    even = split_for_any_worker(whole, max(worker.slots for worker in workers), len(workers))
    chunks = [part for chunk in even for part in split_by_size(chunk, json_sizes)]
    return [row for number, chunk in enumerate(chunks) for row in _rows(chunk, [chunk], number, number, queue)]


def _rows(
    assignment: Assignment, chunks: Sequence[Assignment], number: int, first: int, queue: str
) -> Iterator[ChunkRow]:
    """The rows of an assignment's chunks, which are numbered from `first`. Places and counts of speakers and texts are
    those within the assignment, whose own number is `number`."""
    places: dict[int, int] = {}
    texts: dict[int, int] = {}
    for piece in assignment:
        places.setdefault(piece.speaker, len(places) + 1)
        texts[piece.speaker] = texts.get(piece.speaker, 0) + len(piece)
    total = sum(texts.values())
    for chunk_number, chunk in enumerate(chunks, first):
        slices = [
            SpeakerSliceRow(
                speaker=piece.speaker,
                start=piece.start,
                stop=piece.stop,
                position=places[piece.speaker],
                texts=texts[piece.speaker],
            )
            for piece in chunk
        ]
        yield ChunkRow(
            number=chunk_number, queue=queue, assignment=number, speakers=len(places), texts=total, slices=slices
        )


def _summaries(
    batch: Batch, assignments: Sequence[Assignment], workers: Sequence[WorkerInfo]
) -> list[AssignmentSummary]:
    summaries = []
    for assignment, worker in zip(assignments, workers, strict=True):
        speakers = tuple(dict.fromkeys(batch.speakers[piece.speaker].id for piece in assignment))
        if speakers:
            summaries.append(AssignmentSummary(worker, speakers, sum(map(len, assignment))))
    return summaries
