"""How messages are taken: never out of a queue without being noted as unacknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu.entity import Queue
from kombu.messaging import Consumer
from kombu.transport import redis as redis_transport
from redis import Redis

from cloner.queueing import transport
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from launcher.recovery import move, requeue

CONSUMER = "cpu.0@box"


class TwoQueues:
    """A consumer of two queues, and the messages that it has received."""

    def __init__(self, url: str) -> None:
        self.settings = Settings(redis_url=url)
        self.keys, names = RedisKeys(self.settings.fleet), self.settings.queues
        self.own, self.shared = names.worker_queue("box", "cpu", 0), names.shared_queue()
        self.app = make_app(self.settings, CONSUMER)
        self.connection = self.app.connection_for_read()
        self.channel: Any = self.connection.channel()
        self.bodies: list[str] = []
        self.messages: list[Any] = []
        queues = [Queue(name) for name in (self.own, self.shared)]  # type: ignore[no-untyped-call]
        self.channel.basic_qos(0, 1, False)
        kombu_consumer: Any = Consumer(self.channel, queues, callbacks=[self._receive])  # type: ignore[no-untyped-call]
        kombu_consumer.consume()

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
def consumer(redis: Redis, valkey_url: str) -> Iterator[TwoQueues]:
    consumer = TwoQueues(valkey_url)
    yield consumer
    consumer.connection.close()


@pytest.mark.parametrize("url", ["redis://:pw@host/2", "rediss://host:6379/0", "unix:///run/redis.sock"])
def test_consumers_alone_have_the_transport_whatever_the_address(url: str) -> None:
    settings = Settings(redis_url=url)
    classes = [make_app(settings, name).connection_for_read().get_transport_cls() for name in (CONSUMER, None)]
    assert classes == [transport.Transport, redis_transport.Transport]


def test_its_own_queue_comes_first_and_each_in_its_order(consumer: TwoQueues) -> None:
    for queue, body in [(consumer.shared, "c"), (consumer.own, "a"), (consumer.shared, "d"), (consumer.own, "b")]:
        consumer.send(queue, body)
    assert [consumer.next() for _ in range(4)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("queue", ["own", "shared"])
def test_a_message_that_is_sent_while_it_waits_is_taken(consumer: TwoQueues, redis: Redis, queue: str) -> None:
    with pytest.raises(TimeoutError):
        consumer.connection.drain_events(timeout=0.5)
    consumer.send(getattr(consumer, queue), "late")
    assert consumer.next() == "late"
    assert (
        redis.exists(
            consumer.own, consumer.shared, consumer.keys.unacked(CONSUMER), consumer.keys.unacked_since(CONSUMER)
        )
        == 0
    )


def test_a_message_on_its_way_to_a_process_that_dies_is_unacknowledged_and_can_be_requeued(
    consumer: TwoQueues, redis: Redis, valkey_url: str
) -> None:
    consumer.send(consumer.own, "a")
    consumer.send(consumer.own, "b")
    consumer.channel.connection.cycle._register_BRPOP(consumer.channel)
    while redis.llen(consumer.own) == 2:
        pass
    # As if it were frozen, it never reads the answer.
    assert redis.hlen(consumer.keys.unacked(CONSUMER)) == 1
    assert requeue(redis, consumer.keys, CONSUMER) == 1
    assert redis.llen(consumer.own) == 2
    following = TwoQueues(valkey_url)
    assert [following.next(), following.next()] == ["a", "b"]
    following.connection.close()


def test_one_message_at_a_time(consumer: TwoQueues, redis: Redis) -> None:
    for body in ("a", "b"):
        consumer.send(consumer.own, body)
    consumer.connection.drain_events(timeout=30)
    with pytest.raises(TimeoutError):
        consumer.connection.drain_events(timeout=0.5)
    assert redis.llen(consumer.own) == 1
    assert consumer.bodies == ["a"]


def test_a_message_that_was_moved_comes_from_the_queue_it_was_moved_to(consumer: TwoQueues, redis: Redis) -> None:
    consumer.send("elsewhere", "moved")
    assert move(redis, "elsewhere", consumer.shared) == 1
    consumer.connection.drain_events(timeout=30)
    message = consumer.messages.pop()
    message.requeue()
    assert redis.llen(consumer.shared) == 1
    assert consumer.next() == "moved"


def test_nothing_is_prefetched_while_a_chunk_is_in_flight(
    consumer: TwoQueues, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.send(consumer.own, "a")
    with monkeypatch.context() as busy:
        busy.setattr(transport, "reserved_requests", {"a chunk from before the connection was lost"})
        with pytest.raises(TimeoutError):
            consumer.connection.drain_events(timeout=0.5)
        assert redis.llen(consumer.own) == 1
    assert consumer.next() == "a"
