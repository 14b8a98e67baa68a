"""The state of a fleet, read from Redis."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.monitoring.snapshot import GONE, FleetReader
from cloner.settings import Settings, WorkerSettings
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.registry import Registry, expected_worker


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return Settings(redis_url=valkey_url, fleet="test")


@pytest.fixture
def reader(redis: Redis, settings: Settings) -> FleetReader:
    return FleetReader(redis, settings.names, alive_s=30)


def test_a_worker_without_heartbeats_is_gone_and_has_no_load(
    redis: Redis, settings: Settings, reader: FleetReader
) -> None:
    registry = Registry(redis, settings.names, 30)
    for index in (1, 0):
        worker = expected_worker(settings, WorkerSettings(index=index, number=index, card="GPU-1"))
        registry.register(worker)
        registry.update(worker.name, slots_used=90, frames_s=12.5)
    GpuUsageTable(redis, settings.names).write([GpuUsage("box", "GPU-1", "RTX 4090", 5, 24, None)])
    redis.zadd(settings.names.workers, {"GPU-1.1@box": reader.now() - 31})
    first, second = reader.workers()
    # 90 segments are in flight, but the worker has 64 slots.
    assert (first.state, first.slots_used, first.frames_s) == ("loading", 64, 12.5)
    assert (second.state, second.slots_used, second.frames_s) == (GONE, 0, 0.0)
    assert second.silent_s >= 31
    assert first.gpu_usage == second.gpu_usage == GpuUsage("box", "GPU-1", "RTX 4090", 5, 24, None)


def test_a_damaged_batch_does_not_hide_the_others(redis: Redis, settings: Settings, reader: FleetReader) -> None:
    for number, total in enumerate(["10", "many"]):
        redis.hset(settings.names.batch(f"b{number}"), mapping={"state": "running", "total": total, "chunks": 1})
        redis.zadd(settings.names.batches, {f"b{number}": number})
    redis.zadd(settings.names.batches, {"expired": 2})
    assert reader.batches(newest=2) == ["expired", "b1"]
    assert list(reader.progress(reader.batches(newest=9))) == ["b0"]


def test_queue_lengths_include_queues_of_removed_workers(redis: Redis, settings: Settings, reader: FleetReader) -> None:
    redis.hset(settings.names.queues, "cloner.test.v1.box.GPU-9.0", "GPU-9.0@box")
    redis.rpush("cloner.test.v1.box.GPU-9.0", "message")
    assert reader.queue_lengths([]) == {
        "cloner.test.v1.box.GPU-9.0": 1,
        settings.names.shared_queue(): 0,
        settings.names.collector_queue: 0,
    }
