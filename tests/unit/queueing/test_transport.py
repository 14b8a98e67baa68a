"""How messages are taken: never out of a queue without being noted as unacknowledged."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery.platforms import EX_FAILURE
from kombu.entity import Queue
from kombu.messaging import Consumer
from kombu.transport import redis as redis_transport
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cloner.names import SPEAK_CHUNK
from cloner.protocol.messages import MAX_MESSAGE_BYTES
from cloner.queueing import transport
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.dead_letters import DeadLetters
from cloner.state.keys import RedisKeys
from launcher.recovery import move
from tests.support.redis_server import RedisServer
from tests.support.unacked import requeue

CONSUMER = "cpu.0@box"


class TwoQueues:
    """A consumer of two queues, and the messages that it has received."""

    def __init__(self, url: str) -> None:
        self.settings = Settings(redis_url=url)
        self.keys, names = RedisKeys(self.settings.fleet), self.settings.queues
        self.own, self.shared = names.worker_queue("box", "cpu", 0), names.shared_queue()
        self.app = make_app(self.settings, CONSUMER, [SPEAK_CHUNK])
        self.connection = self.app.connection_for_read()
        self.channel: Any = self.connection.channel()
        self.bodies: list[str] = []
        self.messages: list[Any] = []
        queues = [Queue(name) for name in (self.own, self.shared)]  # type: ignore[no-untyped-call]
        self.channel.basic_qos(0, 1, False)
        kombu_consumer: Any = Consumer(self.channel, queues, callbacks=[self._receive])  # type: ignore[no-untyped-call]
        kombu_consumer.consume()

    def send(self, queue: str, body: str) -> None:
        self.app.send_task(SPEAK_CHUNK, (body,), queue=queue, ignore_result=True)

    def next(self) -> str:
        """Wait for a message, and finish it."""
        self.connection.drain_events(timeout=30)
        self.messages.pop().ack()
        return self.bodies.pop()

    def _receive(self, body: Any, message: Any) -> None:
        ((text,), _, _) = body
        self.bodies.append(text)
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
    assert requeue(redis, CONSUMER) == 1
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


def envelope(**changes: object) -> str:
    """A message whose task this consumer runs."""
    message: dict[str, Any] = {
        "body": base64.b64encode(b'[["good"], {}, {}]').decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "1", "task": SPEAK_CHUNK},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "delivery_tag": "1",
        },
    }
    return json.dumps(message | changes)


BURIED: list[tuple[str | bytes, str]] = [
    ("junk \x1b[31m", "no JSON object"),
    (b"\xff\xfe", "not ASCII"),
    ("7", "no JSON object"),
    (envelope(body="\u00e9").replace("\\u00e9", "\u00e9"), "not ASCII"),
    (envelope(number=0x10).replace('"number": 16', '"number": 0x10'), "Invalid JSON"),
    (envelope(headers=[]), "no headers with an id"),
    (envelope(headers={"task": SPEAK_CHUNK}), "no headers with an id"),
    (envelope(properties=None), "no properties"),
    (envelope(properties={"delivery_tag": "1"}), "no delivery tag or no delivery info"),
    (envelope(properties={"delivery_tag": "1", "delivery_info": {"exchange": 1}}), "no address"),
    ("[" * 100_000, "no JSON object"),
    (" " * (MAX_MESSAGE_BYTES + 1), f"more than {MAX_MESSAGE_BYTES} bytes"),
    (envelope(headers={"id": "1", "task": SPEAK_CHUNK, "timelimit": ["a", None]}), "headers.timelimit.0"),
    (envelope(headers={"id": "1", "task": SPEAK_CHUNK, "compression": "application/x-gzip"}), "headers.compression"),
    (envelope(body="*"), "body"),
]


@pytest.mark.parametrize(("message", "reason"), BURIED, ids=[reason for _, reason in BURIED])
def test_a_malformed_message_goes_to_the_dead_letter_list_and_the_next_is_taken(
    consumer: TwoQueues, redis: Redis, message: str | bytes, reason: str
) -> None:
    redis.lpush(consumer.own, message)
    consumer.send(consumer.own, "good")
    assert consumer.next() == "good"
    (letter,) = DeadLetters(redis, consumer.keys).newest_first()
    assert reason in letter.reason
    assert letter.queue == consumer.own
    assert letter.bytes == len(message.encode() if isinstance(message, str) else message)
    assert redis.exists(consumer.own, consumer.keys.unacked(CONSUMER), consumer.keys.unacked_since(CONSUMER)) == 0


def test_a_message_that_a_live_process_requeues_has_no_deaths_in_a_row(consumer: TwoQueues, redis: Redis) -> None:
    redis.lpush(consumer.own, envelope(headers={"id": "1", "task": SPEAK_CHUNK, "deaths": {"count": 2}}))
    consumer.connection.drain_events(timeout=30)
    consumer.messages.pop().requeue()
    (left,) = redis.lrange("q", 0, -1)  # where its delivery info sends it
    assert json.loads(str(left))["headers"] == {"id": "1", "task": SPEAK_CHUNK, "redelivered": True}


class Worker:
    """What the transport reads of Celery's worker."""

    def __init__(self, exitcode: int | None = None) -> None:
        self.exitcode = exitcode
        self.pool = self
        self._pool = self
        self._all_inqueues: set[int] = set()


def test_nothing_is_taken_before_a_child_process_is_ready(consumer: TwoQueues, redis: Redis) -> None:
    worker = consumer.channel.qos.worker = Worker()
    consumer.send(consumer.own, "a")
    with pytest.raises(TimeoutError):
        consumer.connection.drain_events(timeout=0.5)
    assert redis.llen(consumer.own) == 1
    worker._all_inqueues.add(7)
    assert consumer.next() == "a"


@pytest.mark.parametrize(("exitcode", "left"), [(None, 1), (0, 1), (EX_FAILURE, 0)])
def test_a_worker_that_ends_by_an_error_leaves_its_message_to_the_launcher(
    consumer: TwoQueues, redis: Redis, exitcode: int | None, left: int
) -> None:
    consumer.send(consumer.own, "a")
    consumer.connection.drain_events(timeout=30)
    consumer.channel.qos.worker = Worker(exitcode)
    consumer.channel.close()
    assert redis.llen(consumer.own) == left
    assert redis.hlen(consumer.keys.unacked(CONSUMER)) == 1 - left


def test_a_refusal_in_a_transaction_is_a_lost_connection(server: RedisServer) -> None:
    """As where kombu refreshes how long its tables are kept: it would log a traceback each second."""
    consumer = TwoQueues(server.url)
    redis = connect(server.url)
    redis.replicaof("127.0.0.1", "1")
    with consumer.channel.conn_or_acquire() as client, client.pipeline() as pipe:
        pipe.eval("return redis.call('SET', KEYS[1], '1')", 1, "key")
        with pytest.raises(RedisConnectionError):
            pipe.execute()
    redis.replicaof("NO", "ONE")
    consumer.send(consumer.own, "a")
    assert consumer.next() == "a"
    consumer.connection.close()


def test_a_channel_that_may_not_write_is_not_polled(server: RedisServer) -> None:
    consumer = TwoQueues(server.url)
    redis = connect(server.url)
    redis.replicaof("127.0.0.1", "1")
    with pytest.raises(RedisConnectionError):
        consumer.connection.channel()
    assert consumer.channel.connection.cycle._channels == {consumer.channel}
    redis.replicaof("NO", "ONE")
    consumer.connection.close()
