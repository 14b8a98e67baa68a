"""Which batches have messages in a queue, however long it is."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from cloner.collector.in_flight import MESSAGE_BYTES, SLICE_BYTES, batches_in_queue, remove_from_queue
from cloner.state.connection import connect
from tests.support.round_trips import calls

QUEUE = "queue"


def message(task: str, size: int = 10) -> str:
    """As kombu writes one."""
    return json.dumps({"body": "x" * size, "headers": {"id": task}, "properties": {}})


@pytest.fixture
def blobs(redis: Redis, valkey_url: str) -> Redis:
    redis.config_resetstat()
    return connect(valkey_url, decode=False)


@pytest.mark.parametrize(("count", "size"), [(8, SLICE_BYTES // 2), (3 * SLICE_BYTES // MESSAGE_BYTES, 10)])
def test_redis_reads_a_long_queue_in_slices(redis: Redis, blobs: Redis, count: int, size: int) -> None:
    redis.lpush(QUEUE, *(message(f"b{number}.0", size) for number in range(count)))
    assert batches_in_queue(blobs, QUEUE) == {f"b{number}" for number in range(count)}
    assert 3 <= calls(redis, "eval") <= 5


def test_an_empty_queue_has_no_batches(blobs: Redis) -> None:
    assert batches_in_queue(blobs, QUEUE) == set()
    remove_from_queue(blobs, QUEUE, "b")


def test_a_batchs_messages_are_removed_from_all_slices_and_no_others(redis: Redis, blobs: Redis) -> None:
    tasks = [f"{batch}.{number}" for number in range(7) for batch in ("b", "other", "b", "bb")]
    redis.rpush(QUEUE, *(message(task, SLICE_BYTES // 3) for task in tasks))
    remove_from_queue(blobs, QUEUE, "b")
    left = [json.loads(text)["headers"]["id"] for text in redis.lrange(QUEUE, 0, -1)]
    assert left == [task for task in tasks if not task.startswith("b.")]
    assert calls(redis, "eval") > 5
