"""How messages are taken: never out of a queue without being in a hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu.entity import Queue
from kombu.messaging import Consumer
from kombu.transport.redis import Transport
from redis import Redis

from cloner.queueing import transport as taking
from cloner.queueing.app import make_app
from cloner.queueing.transport import Channel
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from launcher.recovery import move, requeue

HOLDER = "cpu.0@box"


class Hand:
    """One who takes messages of two queues, and what has come to it."""

    def __init__(self, url: str) -> None:
        self.settings = Settings(redis_url=url)
        self.keys, names = RedisKeys(self.settings.fleet), self.settings.queues
        self.own, self.shared = names.worker_queue("box", "cpu", 0), names.shared_queue()
        self.app = make_app(self.settings, HOLDER)
        self.connection = self.app.connection_for_read()
        self.channel: Any = self.connection.channel()
        self.bodies: list[str] = []
        self.messages: list[Any] = []
        queues = [Queue(name) for name in (self.own, self.shared)]  # type: ignore[no-untyped-call]
        self.channel.basic_qos(0, 1, False)
        consumer: Any = Consumer(self.channel, queues, callbacks=[self._receive])  # type: ignore[no-untyped-call]
        consumer.consume()

    def send(self, queue: str, body: str) -> None:
        with self.app.connection_for_write() as connection:
            connection.Producer().publish(body, routing_key=queue, serializer="json")

    def next(self) -> str:
        """Wait for a message, and finish it."""
        self.connection.drain_events(timeout=30)
        self.messages.pop().ack()
        return self.bodies.pop()

    def _receive(self, body: str, message: Any) -> None:
        self.bodies.append(body)
        self.messages.append(message)


@pytest.fixture
def hand(redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hand]:
    monkeypatch.setattr(Transport, "Channel", Channel)
    hand = Hand(valkey_url)
    yield hand
    hand.connection.close()


def test_its_own_queue_comes_first_and_each_in_its_order(hand: Hand) -> None:
    for queue, body in [(hand.shared, "c"), (hand.own, "a"), (hand.shared, "d"), (hand.own, "b")]:
        hand.send(queue, body)
    assert [hand.next() for _ in range(4)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("queue", ["own", "shared"])
def test_what_comes_while_it_waits_is_taken(hand: Hand, redis: Redis, queue: str) -> None:
    with pytest.raises(TimeoutError):
        hand.connection.drain_events(timeout=0.5)
    hand.send(getattr(hand, queue), "late")
    assert hand.next() == "late"
    assert redis.exists(hand.own, hand.shared, hand.keys.unacked(HOLDER), hand.keys.unacked_since(HOLDER)) == 0


def test_what_is_on_its_way_to_one_who_dies_is_in_its_hand_and_can_be_given_back(
    hand: Hand, redis: Redis, valkey_url: str
) -> None:
    hand.send(hand.own, "a")
    hand.send(hand.own, "b")
    hand.channel.connection.cycle._register_BRPOP(hand.channel)
    while redis.llen(hand.own) == 2:
        pass
    # Frozen, it never reads the answer.
    assert redis.hlen(hand.keys.unacked(HOLDER)) == 1
    assert requeue(redis, hand.keys, HOLDER) == 1
    assert redis.llen(hand.own) == 2
    following = Hand(valkey_url)
    assert [following.next(), following.next()] == ["a", "b"]
    following.connection.close()


def test_one_message_at_a_time(hand: Hand, redis: Redis) -> None:
    for body in ("a", "b"):
        hand.send(hand.own, body)
    hand.connection.drain_events(timeout=30)
    with pytest.raises(TimeoutError):
        hand.connection.drain_events(timeout=0.5)
    assert redis.llen(hand.own) == 1
    assert hand.bodies == ["a"]


def test_a_message_that_was_moved_comes_from_the_queue_it_was_moved_to(hand: Hand, redis: Redis) -> None:
    hand.send("elsewhere", "moved")
    assert move(redis, "elsewhere", hand.shared) == 1
    hand.connection.drain_events(timeout=30)
    message = hand.messages.pop()
    message.requeue()
    assert redis.llen(hand.shared) == 1
    assert hand.next() == "moved"


def test_nothing_is_taken_in_reserve_while_a_chunk_is_in_hand(
    hand: Hand, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.send(hand.own, "a")
    with monkeypatch.context() as busy:
        busy.setattr(taking, "reserved_requests", {"a chunk from before the connection was lost"})
        with pytest.raises(TimeoutError):
            hand.connection.drain_events(timeout=0.5)
        assert redis.llen(hand.own) == 1
    assert hand.next() == "a"
