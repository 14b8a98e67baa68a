"""Requeues the messages that a dead process has not acknowledged, and gives up those that kill one after another.

A message carries the count of the processes in a row that have died with it in flight, and its chunk's progress at the
last death: both are in Redis in the one step that requeues it. The count starts at zero again once a run of the chunk
has begun or made progress: the chunk's journal decides what to do about crashes within the run.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from redis import Redis

from cloner.errors import Damaged
from cloner.events import Event
from cloner.names import SPEAK_CHUNK
from cloner.protocol.fields import BatchId, Count
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.dead_letters import BURY
from cloner.state.keys import RedisKeys
from cloner.state.progress import ChunkProgress

REQUEUE = """
local kind = redis.call('TYPE', KEYS[3]).ok
if kind ~= 'list' and kind ~= 'none' then return -1 end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
"""
"""From a consumer's hash of unacknowledged messages, and its index, to the end of a queue that is read next (kombu
reads by BRPOP). -1 if the queue's key is of another type."""

MAX_DEATHS = 3
"""Deaths in a row after which a message goes to the dead-letter list."""

KILLS = f"{MAX_DEATHS} processes in a row died with it in flight, before its work began"

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""Errors of reading a message that kombu has not written."""


class _ChunkId(BaseModel):
    model_config = ConfigDict(extra="ignore")

    batch_id: BatchId
    number: Count


_BODY: TypeAdapter[tuple[tuple[_ChunkId], Any, Any]] = TypeAdapter(tuple[tuple[_ChunkId], Any, Any])


class Requeuer:
    """Requeues messages of dead consumers, which must be dead: else both they and others work on them."""

    def __init__(self, settings: Settings, redis: Redis, log: Callable[[str], object]) -> None:
        """`redis` must decode responses; `log` takes finished log lines."""
        self._redis = redis
        self._keys = RedisKeys(settings.fleet)
        self._batches = BatchStore.of(settings, redis)
        self._log = log

    def requeue(self, consumer: str, *, stopped: bool = False) -> int:
        """Put the messages that a dead consumer has not acknowledged back into the queues they came from, to be read
        next, in the order in which they were taken; returns their number.

        Not those that have killed `MAX_DEATHS` processes, nor what kombu cannot have packed: they go to the dead-letter
        list. A consumer that was `stopped` by a signal has not died of its messages. Raises `RedisError`.
        """
        unacked, since = self._keys.unacked(consumer), self._keys.unacked_since(consumer)
        count = 0
        # Each is put before the others, so what was taken first comes last.
        for tag in map(str, reversed(self._redis.zrange(since, 0, -1))):
            packed = self._redis.hget(unacked, tag)
            try:
                # Our routing keys are queues.
                message, _exchange, queue = json.loads(str(packed))
                if not isinstance(queue, str):
                    raise TypeError
                chunk = _chunk_of(message)
                deaths = self._count_deaths(message["headers"], chunk, stopped)
                message["headers"]["redelivered"] = True
                message["properties"]["delivery_info"]["redelivered"] = True
            except UNREADABLE:
                self._bury(consumer, tag, "", "it is not as kombu packs a message", str(packed))
                continue
            text = json.dumps(message)
            if deaths >= MAX_DEATHS:
                # First: if this process dies in between, the next one finds the message here, and its chunk given up.
                self._give_up(chunk)
                self._bury(consumer, tag, queue, KILLS, text)
            elif (moved := int(self._redis.eval(REQUEUE, 3, unacked, since, queue, tag, text))) >= 0:
                count += moved
            else:
                self._bury(consumer, tag, queue, "its queue is no list in Redis", text)
        return count

    def _give_up(self, chunk: _ChunkId | None) -> None:
        try:
            if chunk:
                self._batches.give_up_chunk(chunk.batch_id, chunk.number)
        except Damaged as error:  # then no client can follow the batch, and no collector can close it
            self._log(Event.FAILED.line(error=error.message))

    def _count_deaths(self, headers: dict[str, Any], chunk: _ChunkId | None, stopped: bool) -> int:
        """The deaths in a row, the last one included, which the message's headers get, too."""
        before = headers.pop("deaths", None)
        progress = self._progress(chunk) if chunk else None
        if progress and progress.given_up:
            return MAX_DEATHS
        if stopped:
            return 0
        # A text that changes when a run of the chunk begins, and when it gets further.
        place = progress.pack() if progress else ""
        is_next = isinstance(before, dict) and before.get("progress") == place
        deaths = 1 + (int(before.get("count", 0)) if is_next else 0)
        headers["deaths"] = {"count": deaths, "progress": place}
        return deaths

    def _progress(self, chunk: _ChunkId) -> ChunkProgress | None:
        try:
            return self._batches.progress_of(chunk.batch_id, chunk.number)
        except Damaged:
            return None

    def _bury(self, consumer: str, tag: str, queue: str, reason: str, text: str) -> None:
        keys = self._keys.unacked(consumer), self._keys.unacked_since(consumer), self._keys.dead_letters
        if self._redis.eval(BURY, len(keys), *keys, tag, queue, reason, text):
            self._log(Event.MESSAGE_DEAD_LETTERED.line(queue=queue or consumer, reason=reason))


def _chunk_of(message: Any) -> _ChunkId | None:
    """Which chunk the message is of; None if it is no chunk's, or cannot be read."""
    if message["headers"].get("task") != SPEAK_CHUNK:
        return None
    try:
        (chunk,), _, _ = _BODY.validate_json(b64decode(message["body"]))
    except (ValidationError, *UNREADABLE):
        return None
    return chunk
