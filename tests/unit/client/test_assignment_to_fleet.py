"""A batch assigned to a fleet: the summaries that are printed and the chunks that are sent."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cloner.batch import Batch, Reference, ReferenceKind, Segment, Speaker
from cloner.client.assignment import Strategy, assign
from cloner.names import SPEAK_CHUNK, QueueNames
from cloner.protocol.messages import MAX_MESSAGE_BYTES
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.validation import MAX_TEXT
from tests.support.batches import SIX_SPEAKERS
from tests.support.workers import worker_info

QUEUES = QueueNames("test")


def batch(sizes: Sequence[int] = SIX_SPEAKERS) -> Batch:
    reference = Reference(ReferenceKind.CODES, (Path("a.npy"),), "Hello.")
    speakers = [
        Speaker(str(n), reference, tuple(Segment(10 * n + m, "x" * 10, f"{n}/{m}.wav") for m in range(size)))
        for n, size in enumerate(sizes)
    ]
    return Batch(Path("batch.json"), tuple(speakers))


def test_a_summary_names_worker_speakers_and_texts() -> None:
    _, summaries = assign(batch(), [worker_info(n) for n in range(4)], Strategy.ROUND_ROBIN, QUEUES)
    assert [str(summary) for summary in summaries] == [
        "Worker 0: 2 speakers (IDs: [0, 4]), 16 texts",
        "Worker 1: 2 speakers (IDs: [1, 5]), 15 texts",
        "Worker 2: 1 speakers (IDs: [2]), 8 texts",
        "Worker 3: 1 speakers (IDs: [3]), 7 texts",
    ]


def test_a_summary_names_some_of_many_speakers() -> None:
    _, (summary,) = assign(batch([1] * 5000), [worker_info(0)], Strategy.ROUND_ROBIN, QUEUES)
    assert str(summary).startswith("Worker 0: 5000 speakers (IDs: [0, 1, 2, ")
    assert str(summary).endswith(", 98, 99, ...]), 5000 texts")


@pytest.mark.parametrize("strategy", [Strategy.ROUND_ROBIN, Strategy.LONGEST_FIRST])
def test_a_worker_that_gets_nothing_has_no_summary_and_no_chunk(strategy: Strategy) -> None:
    chunks, summaries = assign(batch([1, 1]), [worker_info(n) for n in range(4)], strategy, QUEUES)
    assert len(summaries) == len(chunks) == 2


def test_one_slot_gets_one_speaker_a_chunk_into_its_own_queue() -> None:
    workers = [replace(worker_info(n), slots=1) for n in range(2)]
    chunks, _ = assign(batch(), workers, Strategy.ROUND_ROBIN, QUEUES)
    assert [chunk.number for chunk in chunks] == list(range(6))
    assert [(chunk.queue, chunk.assignment) for chunk in chunks] == [("queue-a-0", 0)] * 3 + [("queue-a-1", 1)] * 3
    assert [[part.speaker for part in chunk.slices] for chunk in chunks] == [[0], [2], [4], [1], [3], [5]]
    assert [chunk.slices[0].position for chunk in chunks] == [1, 2, 3] * 2
    assert {(chunk.speakers, chunk.texts) for chunk in chunks} == {(3, 24), (3, 22)}


def test_a_speaker_in_several_chunks_is_counted_as_one() -> None:
    workers = [replace(worker_info(0), slots=2)]
    chunks, _ = assign(batch([160]), workers, Strategy.ROUND_ROBIN, QUEUES)
    parts = [chunk.slices[0] for chunk in chunks]
    assert [(part.start, part.stop, part.texts) for part in parts] == [(0, 64, 160), (64, 128, 160), (128, 160, 160)]


def test_a_speaker_split_over_workers_is_counted_for_each() -> None:
    chunks, summaries = assign(batch([12]), [worker_info(0), worker_info(1)], Strategy.LONGEST_FIRST, QUEUES)
    assert [summary.speakers for summary in summaries] == [("0",), ("0",)]
    assert [(chunk.texts, chunk.slices[0].texts) for chunk in chunks] == [(6, 6), (6, 6)]


def test_each_shared_chunk_is_an_assignment_for_the_widest_worker() -> None:
    workers = [replace(worker_info(0), slots=1), replace(worker_info(1), slots=2)]
    chunks, summaries = assign(batch(), workers, Strategy.SHARED, QUEUES)
    assert summaries == []
    assert {chunk.queue for chunk in chunks} == {QUEUES.shared_queue()}
    assert [(chunk.number, chunk.assignment) for chunk in chunks] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [[part.speaker for part in chunk.slices] for chunk in chunks] == [[0, 1], [2, 3], [4], [5]]
    assert [(chunk.speakers, chunk.texts) for chunk in chunks] == [(2, 16), (2, 15), (1, 8), (1, 7)]
    assert [(part.position, part.texts) for part in chunks[1].slices] == [(1, 8), (2, 7)]


def test_every_worker_gets_some_of_a_small_batch_on_the_shared_queue() -> None:
    workers = [replace(worker_info(n), slots=128) for n in range(4)]
    chunks, _ = assign(batch([30]), workers, Strategy.SHARED, QUEUES)
    assert [chunk.texts for chunk in chunks] == [8, 8, 8, 6]
    chunks, _ = assign(batch(), workers, Strategy.SHARED, QUEUES)
    assert [chunk.texts for chunk in chunks] == [8, 8, 8, 7, 8, 7]


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("slots", [1, 4_000])
def test_no_chunk_is_too_long_for_a_message(strategy: Strategy, slots: int) -> None:
    reference = Reference(ReferenceKind.CODES, (Path("a.npy"),), "\u3042" * MAX_TEXT)
    texts = tuple(Segment(n, "\u3042" * MAX_TEXT, f"{n}.wav") for n in range(70))
    big = Batch(Path("batch.json"), (Speaker("a", reference, texts), *batch([3]).speakers))
    chunks, _ = assign(big, [replace(worker_info(n), slots=slots) for n in range(2)], strategy, QUEUES)
    segments = [
        (row.speaker, place) for chunk in chunks for row in chunk.slices for place in range(row.start, row.stop)
    ]
    assert sorted(segments) == [*((0, place) for place in range(70)), *((1, place) for place in range(3))]
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    app = make_app(Settings(redis_url="redis://localhost"))
    for chunk in chunks:
        parts = [big.speakers[row.speaker].segments[row.start : row.stop] for row in chunk.slices]
        sent = [[segment.text for segment in part] + [reference.text] for part in parts]
        body = json.dumps(app.amqp.as_task_v2("1", SPEAK_CHUNK, args=[sent]).body)
        assert len(b64encode(body.encode())) < MAX_MESSAGE_BYTES * 3 // 4
