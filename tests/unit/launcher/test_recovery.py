from __future__ import annotations

import json

import pytest
from redis import Redis

from cloner.state.dead_letters import DeadLetters
from launcher import recovery
from launcher.recovery import move
from tests.support.unacked import KEYS, QUEUE, QUEUES, bodies, message, next_ones, requeue, take


def test_requeued_messages_come_next_in_the_order_in_which_they_were_taken(redis: Redis) -> None:
    redis.lpush(QUEUE, json.dumps(message(3)))
    take(redis, "killed", "2", taken=20.0)
    take(redis, "killed", "1", taken=10.0)
    assert requeue(redis, "killed") == 2
    assert bodies(redis, QUEUE) == ["1", "2", "3"]
    first, _, untouched = next_ones(redis, QUEUE)
    # Celery does not run a finished task again if its message is marked as redelivered.
    assert first["properties"]["delivery_info"] == {"exchange": "cloner", "routing_key": QUEUE, "redelivered": True}
    assert untouched == message(3)
    assert redis.keys() == [QUEUE]


def test_a_message_goes_back_to_its_queue_and_other_consumers_keep_theirs(redis: Redis) -> None:
    take(redis, "killed", "1", QUEUES.shared_queue())
    take(redis, "alive", "2")
    assert requeue(redis, "killed") == 1
    assert bodies(redis, QUEUES.shared_queue()) == ["1"]
    assert redis.hkeys(KEYS.unacked("alive")) == ["2"]
    assert requeue(redis, "killed") == 0


@pytest.mark.parametrize("junk", ["no json", "[]", "[1, 2, 3]", "null", "{}", "[" * 9_000])
def test_an_unreadable_message_goes_to_the_dead_letter_list(redis: Redis, junk: str) -> None:
    redis.hset(KEYS.unacked("killed"), "x", junk)
    redis.zadd(KEYS.unacked_since("killed"), {"x": 1.0})
    take(redis, "killed", "1")
    assert requeue(redis, "killed") == 1
    assert redis.exists(KEYS.unacked("killed"), KEYS.unacked_since("killed")) == 0
    (letter,) = DeadLetters(redis, KEYS).newest_first()
    assert (letter.message, letter.reason) == (junk, "it is not as kombu packs a message")


def test_a_queue_moves_behind_another_in_its_order_and_its_messages_name_their_new_queue(redis: Redis) -> None:
    shared = QUEUES.shared_queue()
    redis.lpush(shared, json.dumps(message(0, shared)))
    for number in (1, 2, 3):
        redis.lpush(QUEUE, json.dumps(message(number)))
    assert move(redis, QUEUE, shared) == 3
    assert bodies(redis, shared) == ["0", "1", "2", "3"]
    assert next_ones(redis, shared)[1]["properties"]["delivery_info"] == {"exchange": "", "routing_key": shared}
    assert redis.keys() == [shared]


def test_a_long_queue_is_moved_in_several_calls(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOVED_AT_ONCE", 2)
    redis.lpush(QUEUE, *(json.dumps(message(number)) for number in range(3)))
    assert [move(redis, QUEUE, "target") for _ in range(3)] == [2, 1, 0]
    assert bodies(redis, "target") == ["0", "1", "2"]


def test_a_queue_of_large_messages_is_moved_in_several_calls(redis: Redis) -> None:
    for number in range(3):
        redis.lpush(QUEUE, json.dumps({**message(number), "padding": "x" * (recovery.MOVED_BYTES * 2 // 3)}))
    assert [move(redis, QUEUE, "target") for _ in range(3)] == [2, 1, 0]
    assert bodies(redis, "target") == ["0", "1", "2"]


def test_an_unreadable_message_is_moved_unchanged(redis: Redis) -> None:
    redis.lpush(QUEUE, "junk")
    assert move(redis, QUEUE, "target") == 1
    assert redis.lrange("target", 0, -1) == ["junk"]
