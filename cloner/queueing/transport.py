"""kombu's Redis transport, changed where it loses messages. A consumer's app has it by `AMQP`.

Taking a message: kombu pops it and then, in a second command, notes it as unacknowledged. A worker that is killed, or
frozen, in between loses it, and its batch never ends. `Channel` does both in one script.

Losing the connection: Celery forgets the messages that were delivered and not started, since another broker would
deliver them again. Redis keeps them as unacknowledged, and kombu would never requeue them. `RequeueOnReconnect` does.
"""

from __future__ import annotations

import json
from queue import Empty
from time import monotonic, time
from typing import Any

import celery.app.amqp
from celery.bootsteps import StartStopStep
from celery.worker.state import active_requests, reserved_requests
from kombu import connection
from kombu.transport import redis
from kombu.utils.json import loads

WAIT_S = 0.2
"""Seconds between two polls of the shared queue while there is no work; a message in a worker's own queue is fetched
at once."""

TAKE = """
for number = 3, #KEYS do
    local text = redis.call('RPOP', KEYS[number])
    if text then
        local read, message = pcall(cjson.decode, text)
        if read and type(message) == 'table' and type(message.properties) == 'table' then
            local tag, info = message.properties.delivery_tag, message.properties.delivery_info
            if type(tag) == 'string' and type(info) == 'table' then
                local address = cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key)
                redis.call('HSET', KEYS[1], tag, '[' .. text .. ',' .. address .. ']')
                redis.call('ZADD', KEYS[2], ARGV[1], tag)
            end
        end
        return {KEYS[number], text}
    end
end
return false
"""
"""Takes the next message of the first queue that has one, and notes it as `QoS.append` of kombu does. A message that
cannot be read is left to kombu."""


class QoS(redis.QoS):
    """One chunk in flight and none prefetched, also after a lost connection, while the chunk in flight goes on: at the
    next lost connection Celery would drop what it has prefetched.

    Celery's own setting for that (``worker_disable_prefetch``, 5.7) asks the pool, which no longer exists when a worker
    stops, and ends in a traceback.
    """

    def can_consume(self) -> bool:
        # The channel of remote control has no queue of work. Were it not read while a chunk is in flight, no ping would
        # be answered, and a lost connection of it would keep Celery's loop spinning until the chunk's end.
        working = reserved_requests and self.channel.active_queues
        return not working and bool(super().can_consume())  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """kombu's channel (5.7) sends BRPOP whenever it may take a message, and reads the answer when it comes. This one
    sends the script, and where the queues are empty, a command that waits without taking a message.
    """

    QoS = QoS
    _waits = False
    _in_poll: Any
    _brpop_sent_at: Any

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's own
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        if self._waits:
            # It moves a message of the worker's own queue to where it was, for the script to take.
            command = ["BLMOVE", queues[0], queues[0], "RIGHT", "RIGHT", WAIT_S]
        else:
            command = ["EVAL", TAKE, 2 + len(queues), self.unacked_key, self.unacked_index_key, *queues, time()]
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        waited, self._waits = self._waits, False
        try:
            answer = self.client.parse_response(self.client.connection, "EVAL", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
        if waited or not answer:
            self._waits = not waited
            raise Empty
        queue, text = answer
        message = loads(text)  # type: ignore[no-untyped-call]
        self.connection._deliver(message, queue.decode())
        return True


class Transport(redis.Transport):
    """kombu's transport with this module's channel."""

    Channel = Channel


class Connection(connection.Connection):
    """A connection by `Transport`. Celery's setting for that does not hold for the address of a Unix socket."""

    def get_transport_cls(self) -> type[Transport]:
        return Transport


class AMQP(celery.app.amqp.AMQP):  # type: ignore[misc]
    """The part of a Celery app that makes its connections."""

    Connection = Connection


UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError)
"""Errors of reading a message that kombu has not written."""


class RequeueOnReconnect(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A step of Celery's consumer: it runs at each new connection, before the first message is taken."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Requeue the messages that this process has not acknowledged, and does not work on."""
        channel = consumer.task_consumer.channel
        started = {request.id for request in active_requests}
        for tag, packed in channel.client.hgetall(channel.unacked_key).items():
            if _task(packed) not in {None, *started}:
                channel.qos.restore_by_tag(tag)


def _task(packed: bytes) -> str | None:
    """The id of the task of an unacknowledged message, as kombu packs it; None if it cannot be read."""
    try:
        return str(json.loads(packed)[0]["headers"]["id"])
    except UNREADABLE:
        return None
