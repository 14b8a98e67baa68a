"""The data of Flower's fleet page."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from cloner.monitoring.flower.data import FleetData
from cloner.settings import Settings, WorkerSettings
from cloner.state.counters import Counters, failed_check
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from cloner.state.progress import ChunkProgress, Round
from cloner.state.registry import Registry, expected_worker


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return Settings(redis_url=valkey_url, fleet="test")


def _snapshot(redis: Redis, settings: Settings, silent_s: float) -> dict[str, Any]:
    """The snapshot of a fleet with one worker, whose last heartbeat is `silent_s` old, and one half-finished batch."""
    now = float(redis.time()[0])
    expected = expected_worker(settings, WorkerSettings(card="GPU-1", device="cuda:0", gpu="RTX 4090"))
    worker = replace(expected, warning="Kernels are replaced: linear")
    Registry(redis, RedisKeys(settings.fleet), settings.alive_s).register(worker)
    redis.zadd(RedisKeys(settings.fleet).workers, {worker.name: now - silent_s})
    GpuUsageTable(redis, RedisKeys(settings.fleet)).write([GpuUsage("box", "GPU-1", "RTX 4090", 5, 24, 0.5)])
    batch: dict[Any, Any] = {
        "state": "running",
        "total": 10,
        "chunks": 1,
        "source": "b.yaml",
        "speakers": 1,
        "submitted_at": now - 9,
    }
    redis.hset(RedisKeys(settings.fleet).batch("b"), mapping=batch)
    progress = ChunkProgress(5, 0, 100, 30 * 44_100, attempts_again=2, suspects=1)
    redis.hset(RedisKeys(settings.fleet).progress("b"), "0", progress.pack())
    redis.zadd(RedisKeys(settings.fleet).batches, {"b": now - 9})
    return FleetData(settings).snapshot()


def test_a_live_worker_has_gpu_usage_and_a_running_batch_has_a_throughput(redis: Redis, settings: Settings) -> None:
    seen = _snapshot(redis, settings, silent_s=0)
    (worker,), (batch,) = seen["workers"], seen["batches"]
    assert batch["error_rate"] is None
    assert (worker["memory_bytes"], worker["memory_total_bytes"], worker["use"]) == (5, 24, 0.5)
    assert worker["warning"] == "Kernels are replaced: linear"
    assert batch["speed"] > 0
    assert (batch["attempts"], batch["suspects"]) == (1.4, 1)
    assert batch["left_s"] > 0


def test_a_reviewed_batch_has_the_suspects_of_its_result_and_an_estimated_error_rate(
    redis: Redis, settings: Settings
) -> None:
    _snapshot(redis, settings, silent_s=0)
    rate = {"estimate": 0.02, "low": 0.01, "high": 0.04, "sampled": 200}
    fields: dict[Any, Any] = {"state": "done", "suspects": 7, "error_rate": json.dumps(rate)}
    redis.hset(RedisKeys(settings.fleet).batch("b"), mapping=fields)
    (batch,) = FleetData(settings).snapshot()["batches"]
    assert (batch["suspects"], batch["error_rate"]) == (7, rate)


def test_how_far_a_review_is_is_shown_until_the_batch_is_closed_and_takes_wait_apart_from_chunks(
    redis: Redis, settings: Settings
) -> None:
    _snapshot(redis, settings, silent_s=0)
    review = Round(3, (), reviews=32, reviewed=64, to_review=200)
    redis.hset(RedisKeys(settings.fleet).batch("b"), "round", review.pack())
    redis.rpush(settings.queues.review_queue, *["take"] * 5)
    redis.rpush(settings.queues.shared_queue(), "chunk")
    seen = FleetData(settings).snapshot()
    assert (seen["waiting"], seen["takes_waiting"]) == (1, 5)
    assert [batch["reviewing"] for batch in seen["batches"]] == ["reviewing 64 of 200"]
    redis.hset(RedisKeys(settings.fleet).batch("b"), "state", "done")
    assert [batch["reviewing"] for batch in FleetData(settings).snapshot()["batches"]] == [""]


def test_failed_checks_are_those_of_all_workers_the_most_frequent_first(redis: Redis, settings: Settings) -> None:
    counters = Counters(redis, RedisKeys(settings.fleet))
    counters.add("cpu.0@box", {failed_check("pause"): 2, failed_check("too_fast"): 3, failed_check("songs"): 9})
    counters.add("cpu.1@box", {failed_check("pause"): 2})
    assert FleetData(settings).snapshot()["failed_checks"] == [
        {"check": "pause", "attempts": 4},
        {"check": "too fast", "attempts": 3},
    ]


def test_the_dead_letter_list_is_shown_without_the_messages(redis: Redis, settings: Settings) -> None:
    key = RedisKeys(settings.fleet).dead_letters
    assert FleetData(settings).snapshot()["dead_letters"] == []
    redis.xadd(key, {"queue": "q", "reason": "junk\x1b", "bytes": 7, "message": "secret"})
    (letter,) = FleetData(settings).snapshot()["dead_letters"]
    assert (letter["queue"], letter["reason"], letter["bytes"]) == ("q", r"junk\x1b", 7)
    assert 0 <= letter["age_s"] < 60
    assert "secret" not in str(letter)
    redis.set(key, "text")
    (letter,) = FleetData(settings).snapshot()["dead_letters"]
    assert "is no dead-letter list" in letter["reason"]


def test_a_worker_that_is_gone_has_no_usage_and_a_batch_without_workers_no_throughput(
    redis: Redis, settings: Settings
) -> None:
    seen = _snapshot(redis, settings, silent_s=settings.alive_s + 9)
    (worker,), (batch,) = seen["workers"], seen["batches"]
    assert worker["state"] == "gone"
    assert (worker["memory_bytes"], worker["memory_total_bytes"], worker["use"]) == (0, None, None)
    assert (batch["generated"], batch["speed"], batch["left_s"]) == (5, None, None)
