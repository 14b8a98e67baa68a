"""Removing a fleet's keys from a Redis that others use, too."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from cloner.names import QueueNames
from cloner.state.cleanup import remove_fleet
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.progress import Round
from cloner.state.registry import Registry
from tests.support.workers import worker_info

NEIGHBOURS = ("run-1", "run-12", "x-run-1", "main")


def leave_traces(redis: Redis, fleet: str) -> None:
    """What a fleet of this name has in Redis while a batch runs."""
    keys, queues = RedisKeys(fleet), QueueNames(fleet)
    batch_id = f"batch-of-{fleet}"
    queue = queues.worker_queue("box", "cpu", 0)
    Registry(redis, keys, alive_s=30).register(worker_info(0))
    redis.zadd(keys.batches, {batch_id: 1})
    redis.hset(keys.batch(batch_id), mapping={"chunks": "2", "round": Round(1, (1,), missing=1).pack()})
    for key in (keys.manifest(batch_id), keys.progress(batch_id), keys.result(batch_id), keys.reference("digest")):
        redis.set(key, "x")
    for key in (queue, f"{queue}\x06\x163", queues.shared_queue(), queues.collector_queue):
        redis.lpush(key, "message")
    for key in (f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queues.shared_queue()}"):
        redis.sadd(key, "member")
    for task in ("0", "1", "close", "r1.1", "r1.close"):
        redis.set(f"celery-task-meta-{batch_id}.{task}", "x")
    for chord in (batch_id, f"{batch_id}.r1"):
        redis.set(f"celery-taskset-meta-{chord}.j", "x")
    redis.hset(keys.unacked("cpu.0@box"), "tag", json.dumps([{"body": ""}, queue, queue]))
    redis.zadd(keys.unacked_since("cpu.0@box"), {"tag": 1})


@pytest.mark.parametrize("fleet", NEIGHBOURS)
def test_every_key_of_one_fleet_goes_and_none_of_another(redis: Redis, valkey_url: str, fleet: str) -> None:
    others = [name for name in NEIGHBOURS if name != fleet]
    for name in others:
        leave_traces(redis, name)
    redis.set(f"theirs:cloner:{fleet}:batch", "x")
    redis.set(b"\xff\xfe", b"\xff")
    blobs = connect(valkey_url, decode=False)
    before = {key: blobs.dump(key) for key in blobs.scan_iter()}
    leave_traces(redis, fleet)
    remove_fleet(blobs, RedisKeys(fleet))
    assert {key: blobs.dump(key) for key in blobs.scan_iter()} == before


def test_where_nothing_was_left_nothing_is_done(redis: Redis, valkey_url: str) -> None:
    remove_fleet(connect(valkey_url, decode=False), RedisKeys("run-1"))
    assert redis.keys() == []
