"""What a worker counts of its own work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis, RedisError

from cloner.protocol.results import SegmentResult
from cloner.state.counters import Count, Counters
from cloner.state.keys import RedisKeys
from cloner.worker.chunk_run import run_chunk
from cloner.worker.runtime import Runtime
from tests.support.batches import write_batch
from tests.support.workers import Workers


@pytest.fixture
def workers(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    return Workers(redis, valkey_url, tmp_path / "out", slots=2)


@pytest.fixture
def runtime(workers: Workers) -> Runtime:
    runtime = workers.runtime()
    runtime.registry.register(workers.infos[0])
    runtime.load()
    return runtime


def counted(runtime: Runtime) -> dict[Count, float]:
    runtime.meter.report(runtime.registry)
    counts = Counters(runtime.redis, RedisKeys(runtime.settings.fleet)).read()[runtime.name]
    return {what: much for what, much in counts.items() if much}


def test_a_chunk_is_counted_once_by_what_came_of_it(workers: Workers, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "out/audio/1.wav").mkdir(parents=True)  # a file cannot take its place
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    runtime.redis.hset(RedisKeys(runtime.settings.fleet).batch("b"), "submitted_at", runtime.redis.time()[0] - 60)
    with runtime.meter.chunk("b"):
        run_chunk(runtime, chunk)
    counts = counted(runtime)
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
    # Told is told, and what the record has is not spoken again.
    with runtime.meter.chunk("b"):
        run_chunk(runtime, chunk)
    assert counted(runtime)[Count.SEGMENTS_GENERATED] == 2


def test_a_chunk_that_breaks_is_counted_too(runtime: Runtime) -> None:
    with pytest.raises(RedisError), runtime.meter.chunk("b"):
        raise RedisError
    assert counted(runtime) == {Count.LOADS: 1, Count.CHUNKS_FAILED: 1}


def test_slots_in_hand_and_speed_are_those_of_now(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr("cloner.worker.meter.time.monotonic", lambda: now[0])

    def told() -> tuple[int, float]:
        now[0] += 5
        runtime.meter.report(runtime.registry)
        known = runtime.registry.get(runtime.name)
        assert known
        assert known.memory_bytes > 1e6
        return known.slots_used, known.frames_s

    assert told() == (0, 0.0)
    with runtime.meter.chunk("b"):
        for segment in range(3):
            runtime.meter.started(segment)
        for _ in range(4):
            told()
        result = SegmentResult(segment=0, speaker="0", output="0.wav", key="", assignment=0, worker="w", frames=300)
        runtime.meter.finished(result)
        used, frames_s = told()
        assert (used, round(frames_s)) == (2, 20)  # in the last 15 seconds
    assert told() == (0, 0.0)
    with runtime.meter.chunk("b"):
        runtime.meter.started(0)
        runtime.meter.started(1)
        runtime.meter.finished(result)
        assert told() == (1, 60.0)  # since it rested


def test_a_load_where_somebody_has_loaded_before_is_a_restart(workers: Workers, runtime: Runtime) -> None:
    again = workers.runtime()
    again.load()
    again.meter.report(again.registry)
    assert counted(runtime) == {Count.LOADS: 2, Count.RESTARTS: 1}


def test_what_redis_did_not_hear_is_told_again(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise RedisError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Counters, "add", away)
        with pytest.raises(RedisError):
            runtime.meter.report(runtime.registry)
    assert counted(runtime) == {Count.LOADS: 1}
