"""Taking a message out of a queue and into a hand in one step.

kombu pops a message and then notes, in a second command, that it is in this worker's hand. A worker that is killed, or
frozen, in between loses it, and its batch would wait for ever. Here one script does both.


Messages that Celery drops when it loses its connection, given back to their queues when it has a new one.

What was delivered and not begun, Celery forgets: another broker would deliver it again. Redis keeps it as in this
worker's hand, and kombu would never give it back.
"""

from __future__ import annotations

import json
from queue import Empty
from time import monotonic, time
from typing import Any

from celery.bootsteps import StartStopStep
from celery.worker.state import active_requests, reserved_requests
from kombu.transport import redis
from kombu.utils.json import loads

WAIT_S = 0.2
"""Seconds between two looks into the shared queue while there is no work; a worker's own is watched all the time."""

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
"""The next message of the first queue that has one, as `QoS.append` of kombu packs it. What nobody can read is left to
kombu."""


class QoS(redis.QoS):
    """One chunk in hand, and none in reserve, even after each lost connection, while the chunk in hand goes on: at the
    next lost connection what is in reserve would be dropped.

    Celery's own setting for that (``worker_disable_prefetch``, 5.7) asks the pool, which is gone already when a worker
    stops, and ends in a traceback.
    """

    def can_consume(self) -> bool:
        # The channel of remote control has no queue of work. Were it not read while a chunk is in hand, nobody's ping
        # would be answered, and a lost connection of it would keep Celery's loop spinning until the chunk's end.
        working = reserved_requests and self.channel.active_queues
        return not working and bool(super().can_consume())  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """kombu's channel (5.7), which asks for one message by BRPOP whenever it may take one and reads the answer when it
    comes. This one asks by the script, and where there is nothing, by a command that waits without taking.
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
            # A message of the worker's own queue is put back where it was; it is there for the script to take.
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


UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError)
"""What comes of a message that kombu has not written."""


class RequeueOnReconnect(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A step of Celery's consumer: it runs at each new connection, before the first message is taken."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Give back what this process holds, by its own key, and does not work on."""
        channel = consumer.task_consumer.channel
        begun = {request.id for request in active_requests}
        for tag, packed in channel.client.hgetall(channel.unacked_key).items():
            if _task(packed) not in {None, *begun}:
                channel.qos.restore_by_tag(tag)


def _task(packed: bytes) -> str | None:
    """The id of a message's task, as kombu packs what somebody has in hand; None if nobody can tell."""
    try:
        return str(json.loads(packed)[0]["headers"]["id"])
    except UNREADABLE:
        return None
