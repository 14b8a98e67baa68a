"""A worker's counters and rates."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis, RedisError

from cloner.protocol.results import Attempt, SegmentResult
from cloner.state.counters import Count, Counters, failed_check
from cloner.state.keys import RedisKeys
from cloner.worker.chunk_run import run_chunk
from cloner.worker.worker_process import WorkerProcess
from tests.support.batches import write_batch
from tests.support.workers import Workers


@pytest.fixture
def workers(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    return Workers(redis, valkey_url, tmp_path / "out", slots=2)


@pytest.fixture
def worker(workers: Workers) -> WorkerProcess:
    worker = workers.start()
    worker.registry.register(workers.infos[0])
    worker.load()
    return worker


def counted(worker: WorkerProcess) -> dict[str, float]:
    worker.metrics.report(worker.registry)
    counts = Counters(worker.redis, RedisKeys(worker.settings.fleet)).read()[worker.name]
    return {what: much for what, much in counts.items() if much}


def test_a_chunk_is_counted_once_with_its_results(workers: Workers, worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "out/audio/1.wav").mkdir(parents=True)  # a file cannot take its place
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    worker.redis.hset(RedisKeys(worker.settings.fleet).batch("b"), "submitted_at", worker.redis.time()[0] - 60)
    with worker.metrics.chunk("b"):
        run_chunk(worker, chunk)
    counts = counted(worker)
    assert 60 <= counts.pop(Count.QUEUED_S) < 120
    assert counts.pop(Count.FRAMES) > 50
    assert counts.pop(Count.AUDIO_S) > 2
    assert counts == {
        Count.LOADS: 1,
        Count.CHUNKS_TAKEN: 1,
        Count.CHUNKS_FINISHED: 1,
        Count.SEGMENTS_GENERATED: 2,
        Count.SEGMENTS_FAILED: 1,
    }
    # Counts are reported once, and the record's segments are not generated again.
    with worker.metrics.chunk("b"):
        run_chunk(worker, chunk)
    assert counted(worker)[Count.SEGMENTS_GENERATED] == 2


def test_attempts_are_counted_when_their_segment_is_finished(worker: WorkerProcess) -> None:
    failed = [Attempt(0, number, number, 1.0, {"pause": 4.0, "loop": 1.0}, kept=number == 2) for number in (1, 2)]
    good = [Attempt(3, 1, 1, 1.0, {"cut_end": 2.0}, kept=False), Attempt(3, 2, 2, 1.0, {}, kept=True)]
    result = SegmentResult(segment=0, speaker="0", output="0.wav", key="", assignment=0, worker="w")
    worker.metrics.finished(replace(result, attempts=(*failed, *good), suspicion=2.0))
    counts = counted(worker)
    assert (counts[Count.ATTEMPTS_AGAIN], counts[Count.SUSPECTS], counts[Count.SEGMENTS_GENERATED]) == (2, 1, 1)
    assert {name: counts[failed_check(name)] for name in ("pause", "loop", "cut_end")} == {
        "pause": 2,
        "loop": 2,
        "cut_end": 1,
    }


def test_a_chunk_that_fails_is_counted(worker: WorkerProcess) -> None:
    with pytest.raises(RedisError), worker.metrics.chunk("b"):
        raise RedisError
    assert counted(worker) == {Count.LOADS: 1, Count.CHUNKS_FAILED: 1}


def test_slots_used_and_frame_rate_are_current(worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr("cloner.worker.metrics.time.monotonic", lambda: now[0])

    def reported() -> tuple[int, float]:
        now[0] += 5
        worker.metrics.report(worker.registry)
        known = worker.registry.get(worker.name)
        assert known
        assert known.memory_bytes > 1e6
        return known.slots_used, known.frames_s

    assert reported() == (0, 0.0)
    with worker.metrics.chunk("b"):
        for segment in range(3):
            worker.metrics.started(segment)
        for _ in range(4):
            reported()
        result = SegmentResult(segment=0, speaker="0", output="0.wav", key="", assignment=0, worker="w", frames=300)
        worker.metrics.finished(result)
        used, frames_s = reported()
        assert (used, round(frames_s)) == (2, 20)  # in the last 15 seconds
    assert reported() == (0, 0.0)
    with worker.metrics.chunk("b"):
        worker.metrics.started(0)
        worker.metrics.started(1)
        worker.metrics.finished(result)
        assert reported() == (1, 60.0)  # since it was idle


def test_a_load_after_an_earlier_load_is_a_restart(workers: Workers, worker: WorkerProcess) -> None:
    again = workers.start()
    again.load()
    again.metrics.report(again.registry)
    assert counted(worker) == {Count.LOADS: 2, Count.RESTARTS: 1}


def test_counts_that_could_not_be_reported_are_reported_later(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise RedisError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Counters, "add", away)
        with pytest.raises(RedisError):
            worker.metrics.report(worker.registry)
    assert counted(worker) == {Count.LOADS: 1}
