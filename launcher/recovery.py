"""Messages of those who have died: given back to their queue, or moved to another one. No Celery needed.

A message is in one place at each moment: every step is one script, which Redis runs whole or not at all.


Queues that nobody reads any more: a fleet with fewer workers, another card in the box, a box that is gone.

What is in them, and in the hand of those who read them, goes to the shared queue, which all workers read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from redis import Redis

from cloner.names import PARENT, collector_name
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry
from launcher.health import exists, pid_of
from launcher.lease import cut, longest_lease_s

GIVE_BACK = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
"""
"""From a holder's hash, and its index, to the end of a queue that is read next (kombu reads by BRPOP)."""

MOVE = """
if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then return 0 end
redis.call('RPOP', KEYS[1])
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""
"""From the end of a queue that is read next to that of another one that is read last."""

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""What comes of a message that kombu has not written."""

MOVED_AT_ONCE = 1000
"""Messages that are moved in one go, about half a second's worth: whoever moves them has other things to see to."""


def requeue(redis: Redis, keys: RedisKeys, holder: str) -> int:
    """Put what a dead holder had in hand back into the queues it came from, to be read next, in the order in which it
    was taken; returns how many messages that were.

    The holder must be dead: what a living one has in hand would be worked on twice. What kombu cannot have packed is
    left where it is. Raises `RedisError`.
    """
    held, since = keys.unacked(holder), keys.unacked_since(holder)
    taken = redis.zrange(since, 0, -1)
    given = 0
    # Each is put before those that are there, so what was taken first comes last.
    for tag in map(str, reversed(taken)):
        packed = redis.hget(held, tag)
        try:
            # Our routing keys are queues.
            message, _exchange, queue = json.loads(str(packed))
            message["headers"]["redelivered"] = True
            message["properties"]["delivery_info"]["redelivered"] = True
        except UNREADABLE:
            continue
        given += int(redis.eval(GIVE_BACK, 3, held, since, queue, tag, json.dumps(message)))
    return given


def move(redis: Redis, source: str, target: str) -> int:
    """Move a queue's messages behind those of another one, in their order, at most `MOVED_AT_ONCE`; returns how many
    that were. Raises `RedisError`."""
    moved = 0
    while moved < MOVED_AT_ONCE and (last := redis.lindex(source, -1)) is not None:
        text = str(last)
        moved += int(redis.eval(MOVE, 2, source, target, text, _readdressed(text, target)))
    return moved


def _readdressed(text: str, queue: str) -> str:
    """The message as if it had been sent to that queue: a worker that stops gives it back there."""
    try:
        message = json.loads(text)
        # To a queue by its name, for which kombu need not know what is bound to an exchange.
        message["properties"]["delivery_info"].update(exchange="", routing_key=queue)
    except UNREADABLE:
        return text  # whoever reads the queue says so
    return json.dumps(message)


NO_LEASE = -2
"""What Redis answers who asks how long a key lasts that is not there."""

LONGEST_S = 600.0
"""Seconds that another box's lease may have left; more is a clock's doing."""


class Takeover:
    """A launcher's look at everybody who has ever had a queue in the fleet, and at the boxes' collectors.

    Those of this box are known to be gone if the launcher does not keep them and their process is not there. Others
    count as gone when, between two looks `alive_s` apart, nobody held their box and they showed no sign of life.
    """

    def __init__(self, settings: Settings, registry: Registry, say: Callable[[str], object]) -> None:
        self._settings = settings
        self._redis = registry.redis
        self._keys = registry.keys
        self._say = say
        self._queues: dict[str, str] = {}
        self._gone: set[str] = set()
        self._seen: dict[str, tuple[str, bool]] = {}
        self._due = 0.0

    def start_anew(self) -> None:
        """Redis has not answered: nobody can be blamed for what was not seen."""
        self._seen.clear()

    def look(self, kept: Collection[str], now: float) -> None:
        """Take over from all who are gone; `kept` are those that this launcher keeps running. Raises `RedisError`."""
        if now >= self._due:
            self._look_around()
            self._due = now + self._settings.alive_s
        gone = sorted(self._gone.difference(kept))
        with self._redis.pipeline(transaction=False) as pipe:
            for holder in gone:
                pipe.exists(self._keys.unacked(holder), self._queues.get(holder, ""))
            left: list[Any] = pipe.execute()
        for holder in (holder for holder, keys in zip(gone, left, strict=True) if keys):
            self._take_over(holder)

    def give_up(self, worker: str) -> None:
        """This launcher does not keep the worker any more."""
        self._gone.add(worker)

    def _look_around(self) -> None:
        found = self._redis.hgetall(self._keys.worker_queues)
        self._queues = {
            str(name): str(queue) for queue, name in found.items() if self._settings.queues.is_this_version(str(queue))
        }
        holders = sorted({*self._queues, *(collector_name(_box(name)) for name in self._queues)})
        with self._redis.pipeline(transaction=False) as pipe:
            for holder in holders:
                pipe.hget(self._keys.process_heartbeats, self._keys.process_heartbeat(holder, PARENT))
                pipe.pttl(self._keys.box_lease(_box(holder)))
            answers: list[Any] = pipe.execute()
        before, self._seen = self._seen, {}
        for holder, pulse, left_ms in zip(holders, answers[::2], answers[1::2], strict=True):
            self._seen[holder] = (pulse or "", left_ms != NO_LEASE)
            # Another box may be given longer to stop than this one.
            cut(
                self._redis,
                self._keys.box_lease(_box(holder)),
                left_ms,
                max(LONGEST_S, longest_lease_s(self._settings)),
            )
        self._gone = {holder for holder, seen in self._seen.items() if self._is_gone(holder, seen, before.get(holder))}

    def _is_gone(self, holder: str, seen: tuple[str, bool], before: tuple[str, bool] | None) -> bool:
        pulse, is_held = seen
        if _box(holder) == self._settings.box:
            return not exists(pid_of(pulse)) or (before is not None and before[0] == pulse)
        return not is_held and seen == before

    def _take_over(self, holder: str) -> None:
        count = requeue(self._redis, self._keys, holder)
        where = "their queue"
        if queue := self._queues.get(holder):  # collectors share theirs
            # Also what has just been given back to it.
            count, where = move(self._redis, queue, self._settings.queues.shared_queue()), "the shared queue"
        if count:
            self._say(f"[Main] {holder} is gone, its messages go to {where}: {count}")


def _box(holder: str) -> str:
    return holder.rpartition("@")[2]
