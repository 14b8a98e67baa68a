"""The state of a fleet, read from Redis."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.monitoring.snapshot import GONE, FleetReader
from cloner.settings import Settings, WorkerSettings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_worker


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return Settings(redis_url=valkey_url, fleet="test")


@pytest.fixture
def reader(redis: Redis, settings: Settings) -> FleetReader:
    blobs = connect(str(settings.redis_url), decode=False)
    return FleetReader(settings, redis, BatchStore.of(settings, blobs))


def test_a_worker_without_heartbeats_is_gone_and_has_no_load(
    redis: Redis, settings: Settings, reader: FleetReader
) -> None:
    registry = Registry(redis, RedisKeys(settings.fleet), 30)
    for index in (1, 0):
        worker = expected_worker(settings, WorkerSettings(index=index, number=index, card="GPU-1"))
        registry.register(worker)
        registry.update(worker.name, slots_used=90, frames_s=12.5)
    GpuUsageTable(redis, RedisKeys(settings.fleet)).write([GpuUsage("box", "GPU-1", "RTX 4090", 5, 24, None)])
    redis.zadd(RedisKeys(settings.fleet).workers, {"GPU-1.1@box": reader.now() - 31})
    first, second = reader.workers()
    # 90 segments are in flight, but the worker has 64 slots.
    assert (first.state, first.slots_used, first.frames_s) == ("loading", 64, 12.5)
    assert (second.state, second.slots_used, second.frames_s) == (GONE, 0, 0.0)
    assert second.silent_s >= 31
    assert first.gpu_usage == second.gpu_usage == GpuUsage("box", "GPU-1", "RTX 4090", 5, 24, None)


def test_a_damaged_batch_does_not_hide_the_others(redis: Redis, settings: Settings, reader: FleetReader) -> None:
    for number, total in enumerate(["10", "many"]):
        redis.hset(
            RedisKeys(settings.fleet).batch(f"b{number}"), mapping={"state": "running", "total": total, "chunks": 1}
        )
        redis.zadd(RedisKeys(settings.fleet).batches, {f"b{number}": number})
    redis.zadd(RedisKeys(settings.fleet).batches, {"expired": 2})
    assert reader.batches(newest=2) == ["expired", "b1"]
    assert list(reader.progress(reader.batches(newest=9))) == ["b0"]


def test_queue_lengths_include_queues_of_removed_workers(redis: Redis, settings: Settings, reader: FleetReader) -> None:
    redis.hset(RedisKeys(settings.fleet).worker_queues, "cloner.test.v3.box.GPU-9.0", "GPU-9.0@box")
    redis.rpush("cloner.test.v3.box.GPU-9.0", "message")
    assert reader.queue_lengths([]) == {
        "cloner.test.v3.box.GPU-9.0": 1,
        settings.queues.shared_queue(): 0,
        settings.queues.collector_queue: 0,
        settings.queues.review_queue: 0,
    }
