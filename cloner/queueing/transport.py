"""kombu's Redis transport, changed where it loses messages. A consumer's app has it by `AMQP`.

Taking a message: kombu pops it and then, in a second command, notes it as unacknowledged. A worker that is killed, or
frozen, in between loses it, and its batch never ends. `Channel` does both in one script.

A message is checked when it is taken: one that Celery or kombu cannot take safely goes to the dead-letter list.

Losing the connection: Celery forgets the messages that were delivered and not started, since another broker would
deliver them again. Redis keeps them as unacknowledged, and kombu would never requeue them. `RequeueOnReconnect` does.

A server that refuses commands for a time, as a replica or one without memory does: Celery survives lost connections
only, so the connection is given up at such an answer, and a new one fails until the server takes writes.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from queue import Empty
from time import monotonic, time
from typing import Any

import celery.app.amqp
from celery.bootsteps import StartStopStep
from celery.platforms import EX_FAILURE
from celery.worker.state import active_requests, reserved_requests
from kombu import connection
from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from cloner.events import Event
from cloner.logs import log_event
from cloner.protocol.messages import MAX_MESSAGE_BYTES
from cloner.queueing.envelope import Malformed, read_message
from cloner.state.connection import is_refusal
from cloner.state.dead_letters import ADD_LETTER, BURY

WAIT_S = 0.2
"""Seconds between two polls of the queues while there is no work."""

TAKE = (
    ADD_LETTER
    + r"""
local function problem_of(text, most_bytes)
    if #text > most_bytes then return 'it has more than ' .. most_bytes .. ' bytes' end
    if string.find(text, '[\128-\255]') then return 'it is not ASCII, as kombu writes JSON' end
    local read, message = pcall(cjson.decode, text)
    if not read or type(message) ~= 'table' then return 'it is no JSON object' end
    local headers, properties = message.headers, message.properties
    if type(headers) ~= 'table' or type(headers.id) ~= 'string' then return 'it has no headers with an id' end
    if type(properties) ~= 'table' then return 'it has no properties' end
    local tag, info = properties.delivery_tag, properties.delivery_info
    if type(tag) ~= 'string' or type(info) ~= 'table' then return 'it has no delivery tag or no delivery info' end
    if type(info.exchange) ~= 'string' or type(info.routing_key) ~= 'string' then return 'it has no address' end
    return nil, tag, cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key)
end
for number = 5, #KEYS do
    -- First, so that the other commands are not refused where Redis has no memory left.
    local text = redis.call('RPOP', KEYS[number])
    if text then
        local problem, tag, address = problem_of(text, tonumber(ARGV[2]))
        if problem then
            add_letter(KEYS[3], KEYS[number], problem, text)
            return {KEYS[number], '', '', problem}
        end
        redis.call('HSET', KEYS[1], tag, '[' .. text .. ',' .. address .. ']')
        redis.call('ZADD', KEYS[2], ARGV[1], tag)
        redis.call('SADD', KEYS[4], ARGV[3])
        return {KEYS[number], text, tag, ''}
    end
end
return false
"""
)
"""Takes the next message of the first queue that has one, and notes it as `QoS.append` of kombu does, and that its
consumer has some. One that could not be requeued from there goes to the dead-letter list."""


class QoS(redis.QoS):
    """One chunk in flight and none prefetched, also after a lost connection, while the chunk in flight goes on: at the
    next lost connection Celery would drop what it has prefetched.

    Celery's own setting for that (``worker_disable_prefetch``, 5.7) asks the pool, which no longer exists when a worker
    stops, and ends in a traceback.
    """

    worker: Any = None
    """Celery's worker, once it has a connection."""

    def can_consume(self) -> bool:
        # The channel of remote control has no queue of work. Were it not read while a chunk is in flight, no ping would
        # be answered, and a lost connection of it would keep Celery's loop spinning until the chunk's end.
        waits = self.channel.active_queues and (reserved_requests or self._is_loading())
        return not waits and bool(super().can_consume())  # type: ignore[no-untyped-call]

    def restore_unacked_once(self, stderr: Any = None) -> None:
        # What ends Celery by an error may be the message in flight: the launcher requeues it, and counts.
        if self.worker is None or self.worker.exitcode != EX_FAILURE:
            super().restore_unacked_once(stderr)  # type: ignore[no-untyped-call]

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Do nothing: kombu would look for messages that are unacknowledged for too long, and none is (`app.NEVER_S`);
        and its lock, which Redis refuses where it has no memory, would end Celery."""

    def _is_loading(self) -> bool:
        """Whether no child process is ready for a task. A message that waited for it in flight would be blamed for the
        deaths of processes that do not load."""
        pool = self.worker and self.worker.pool and self.worker.pool._pool
        return bool(pool) and not pool._all_inqueues


@cache
def given_up_at_refusals(connection_class: type[Any]) -> type[Any]:
    """That class of redis-py's connections, with a refusal of the server (`is_refusal`) as a lost connection."""

    class GivenUpAtRefusals(connection_class):  # type: ignore[misc]  # one of three, by the address
        def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                reply = super().read_response(*args, **options)
                if isinstance(reply, list):  # in that of a transaction, each reply may be an error
                    for error in filter(is_refusal, reply):
                        raise error
            except ResponseError as error:
                if not is_refusal(error):
                    raise
                self.disconnect()
                raise RedisConnectionError(str(error)) from error
            return reply

    return GivenUpAtRefusals


class Channel(redis.Channel):
    """kombu's channel (5.7) sends BRPOP whenever it may take a message, and reads the answer when it comes. This one
    sends the script, and where the queues are empty, a command that waits without taking a message.
    """

    QoS = QoS
    from_transport_options: Any = (
        *redis.Channel.from_transport_options,
        "absent_key",
        "dead_letters_key",
        "consumers_key",
        "consumer",
        "tasks",
    )
    absent_key: str
    dead_letters_key: str
    consumers_key: str
    consumer: str
    """The name under which the process takes messages."""
    tasks: Collection[str]
    """Names of the tasks that the process runs."""
    _waits = False
    _in_poll: Any
    _brpop_sent_at: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        # Else Celery would connect again at once, without end, for as long as the server answers and refuses to write.
        try:
            with self.conn_or_acquire() as client:
                client.rpushx(self.absent_key, "")
        except Exception:
            self.close()  # type: ignore[no-untyped-call]  # it is polled already
            raise

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        return params | {"connection_class": given_up_at_refusals(params["connection_class"])}

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's own
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        if self._waits:
            # On a list that never exists: what waits for messages without taking one (BLMOVE) needs memory.
            command = ["BLPOP", self.absent_key, WAIT_S]
        else:
            keys = [self.unacked_key, self.unacked_index_key, self.dead_letters_key, self.consumers_key, *queues]
            command = ["EVAL", TAKE, len(keys), *keys, time(), MAX_MESSAGE_BYTES, self.consumer]
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
        name, text, tag, problem = answer
        queue = name.decode()
        if problem:
            log_event(Event.MESSAGE_DEAD_LETTERED, queue=queue, reason=problem.decode())
            raise Empty
        try:
            message = read_message(text, self.tasks)
        except Malformed as error:
            self._bury(text, tag, queue, error.message)
            raise Empty from None
        self.connection._deliver(message, queue)
        return True

    def _bury(self, text: bytes, tag: bytes, queue: str, reason: str) -> None:
        """Move a message that was just taken to the dead-letter list."""
        keys = [self.unacked_key, self.unacked_index_key, self.dead_letters_key]
        with self.conn_or_acquire() as client:
            client.eval(BURY, len(keys), *keys, tag, queue, reason, text)
        log_event(Event.MESSAGE_DEAD_LETTERED, queue=queue, reason=reason)

    def _do_restore_message(self, payload: Any, *address: Any, **options: Any) -> None:
        # Not from a dead process: the deaths before it were not in a row with the next.
        payload["headers"].pop("deaths", None)
        super()._do_restore_message(payload, *address, **options)  # type: ignore[no-untyped-call]


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
        channel.qos.worker = consumer.controller
        started = {request.id for request in active_requests}
        for tag, packed in channel.client.hgetall(channel.unacked_key).items():
            if task_of_unacked(packed) not in {None, *started}:
                channel.qos.restore_by_tag(tag)


def task_of_unacked(packed: bytes) -> str | None:
    """The id of the task of an unacknowledged message, as kombu packs it; None if it cannot be read."""
    try:
        return str(json.loads(packed)[0]["headers"]["id"])
    except UNREADABLE:
        return None
