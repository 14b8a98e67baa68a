from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from cloner.names import QueueNames
from cloner.state.keys import RedisKeys
from launcher import recovery as handback
from launcher.recovery import move, requeue

KEYS = RedisKeys("main")
QUEUES = QueueNames("main")
QUEUE = QUEUES.worker_queue("box", "cpu", 0)


def message(number: int, queue: str = QUEUE) -> dict[str, Any]:
    """As kombu writes it, in short."""
    info = {"exchange": "cloner", "routing_key": queue}
    return {"body": str(number), "headers": {"id": str(number)}, "properties": {"delivery_info": info}}


def take(redis: Redis, holder: str, tag: str, queue: str = QUEUE, taken: float = 1.0) -> None:
    """As kombu does."""
    redis.hset(KEYS.unacked(holder), tag, json.dumps([message(int(tag), queue), "cloner", queue]))
    redis.zadd(KEYS.unacked_since(holder), {tag: taken})


def next_ones(redis: Redis, queue: str) -> list[dict[str, Any]]:
    """What is in a queue, in the order in which it will be read."""
    return [json.loads(text) for text in reversed(redis.lrange(queue, 0, -1))]


def bodies(redis: Redis, queue: str) -> list[str]:
    return [found["body"] for found in next_ones(redis, queue)]


def test_what_somebody_had_in_hand_comes_next_in_the_order_in_which_it_was_taken(redis: Redis) -> None:
    redis.lpush(QUEUE, json.dumps(message(3)))
    take(redis, "dead", "2", taken=20.0)
    take(redis, "dead", "1", taken=10.0)
    assert requeue(redis, KEYS, "dead") == 2
    assert bodies(redis, QUEUE) == ["1", "2", "3"]
    first, _, untouched = next_ones(redis, QUEUE)
    # Celery does not run a finished task again if the message says that it came before.
    assert first["properties"]["delivery_info"] == {"exchange": "cloner", "routing_key": QUEUE, "redelivered": True}
    assert untouched == message(3)
    assert redis.keys() == [QUEUE]


def test_a_message_goes_back_to_the_queue_it_came_from_and_others_keep_theirs(redis: Redis) -> None:
    take(redis, "dead", "1", QUEUES.shared_queue())
    take(redis, "alive", "2")
    assert requeue(redis, KEYS, "dead") == 1
    assert bodies(redis, QUEUES.shared_queue()) == ["1"]
    assert redis.hkeys(KEYS.unacked("alive")) == ["2"]
    assert requeue(redis, KEYS, "dead") == 0


@pytest.mark.parametrize("junk", ["no json", "[]", "[1, 2, 3]", "null", "{}"])
def test_what_nobody_can_read_stays_where_it_is(redis: Redis, junk: str) -> None:
    redis.hset(KEYS.unacked("dead"), "x", junk)
    redis.zadd(KEYS.unacked_since("dead"), {"x": 1.0})
    take(redis, "dead", "1")
    assert requeue(redis, KEYS, "dead") == 1
    assert redis.hgetall(KEYS.unacked("dead")) == {"x": junk}


def test_a_queue_moves_behind_another_in_its_order_and_says_where_it_is(redis: Redis) -> None:
    shared = QUEUES.shared_queue()
    redis.lpush(shared, json.dumps(message(0, shared)))
    for number in (1, 2, 3):
        redis.lpush(QUEUE, json.dumps(message(number)))
    assert move(redis, QUEUE, shared) == 3
    assert bodies(redis, shared) == ["0", "1", "2", "3"]
    assert next_ones(redis, shared)[1]["properties"]["delivery_info"] == {"exchange": "", "routing_key": shared}
    assert redis.keys() == [shared]


def test_a_long_queue_is_moved_bit_by_bit(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handback, "MOVED_AT_ONCE", 2)
    redis.lpush(QUEUE, *(json.dumps(message(number)) for number in range(3)))
    assert [move(redis, QUEUE, "target") for _ in range(3)] == [2, 1, 0]
    assert bodies(redis, "target") == ["0", "1", "2"]


def test_junk_in_a_queue_is_moved_as_it_is(redis: Redis) -> None:
    redis.lpush(QUEUE, "junk")
    assert move(redis, QUEUE, "target") == 1
    assert redis.lrange("target", 0, -1) == ["junk"]
