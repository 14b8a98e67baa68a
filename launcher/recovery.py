"""Recovery of messages that no process works on any more. Needs no Celery.

Messages that a dead process has not acknowledged go back to the queue that they came from (`requeue.py`). A queue that
no worker reads any more, because the fleet has fewer workers, another card or one box less, is moved to the shared
queue, which all workers read (`Takeover`). A message is in one place at each moment: every step is one script, which
Redis runs whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from redis import Redis

from cloner.errors import one_line
from cloner.events import Event
from cloner.names import PARENT, collector_name, is_collector, is_reviewer
from cloner.settings import Settings
from cloner.state.gone import GoneConsumers
from cloner.state.registry import Registry
from launcher.health import exists, pid_of
from launcher.lease import longest_lease_s, shorten
from launcher.requeue import UNREADABLE, Requeuer

MOVE = """
if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then return 0 end
redis.call('RPOP', KEYS[1])
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""
"""From the end of a queue that is read next to that of another one that is read last."""

MOVED_AT_ONCE = 1000
MOVED_BYTES = 4 * 1024**2
"""Messages, and bytes of them, after which a call of `move` ends. It takes about half a second, in which the launcher
does nothing else. A message of 4,096 segments has 0.9 MB."""

NO_KEY = -2
"""Redis's answer to PTTL for a key that does not exist."""

MAX_LEASE_S = 600.0
"""Seconds that another box's lease may have left; more comes of a clock that was changed."""


def move(redis: Redis, source: str, target: str) -> int:
    """Move a queue's messages behind those of another one, in their order, until they are `MOVED_AT_ONCE` or have
    `MOVED_BYTES`; returns their number. Raises `RedisError`."""
    moved = size = 0
    while moved < MOVED_AT_ONCE and size < MOVED_BYTES and (last := redis.lindex(source, -1)) is not None:
        text = str(last)
        size += len(text)
        moved += int(redis.eval(MOVE, 2, source, target, text, _readdressed(text, target)))
    return moved


def _readdressed(text: str, queue: str) -> str:
    """The message as if it had been sent to that queue: a worker that stops requeues it there."""
    try:
        message = json.loads(text)
        # To a queue by its name, for which kombu need not know what is bound to an exchange.
        message["properties"]["delivery_info"].update(exchange="", routing_key=queue)
    except UNREADABLE:
        return text  # the worker that reads it logs that it is unreadable
    return json.dumps(message)


class Takeover:
    """Finds consumers that are gone, among all that are registered in the fleet or have taken a message, and the boxes'
    collectors, and moves their messages. What is registered of those that are gone for good is removed.

    Consumers of this box are gone if the launcher does not keep them and their process does not exist. Others are gone
    if, in two scans `alive_s` apart, no launcher held their box and no heartbeat of theirs changed.
    """

    def __init__(self, settings: Settings, registry: Registry, log: Callable[[str], object]) -> None:
        self._settings = settings
        self._requeuer = Requeuer(settings, registry.redis, log)
        self._redis = registry.redis
        self._keys = registry.keys
        self._gone_consumers = GoneConsumers(settings, registry.redis)
        self._log = log
        self._queues: dict[str, str] = {}
        self._gone: set[str] = set()
        self._given_up: set[str] = set()
        self._seen: dict[str, tuple[str, bool]] = {}
        self._scan_due = 0.0

    def reset(self) -> None:
        """Redis has not answered, so heartbeats may have been missed: compare nothing with the scan before."""
        self._seen.clear()

    def poll(self, kept: Collection[str], now: float) -> None:
        """Move the messages of all that are gone; `kept` are those that this launcher runs. Raises `RedisError`."""
        if now >= self._scan_due:
            self._scan({*kept, *self._given_up})
            self._scan_due = now + self._settings.alive_s
        gone = sorted(self._gone.difference(kept))
        with self._redis.pipeline(transaction=False) as pipe:
            for consumer in gone:
                pipe.exists(self._keys.unacked(consumer), self._queues.get(consumer, ""))
            left: list[Any] = pipe.execute()
        for consumer in (consumer for consumer, keys in zip(gone, left, strict=True) if keys):
            self._take_over(consumer)

    def give_up(self, worker: str) -> None:
        """This launcher does not run the worker any more."""
        self._gone.add(worker)
        self._given_up.add(worker)

    def _scan(self, own: Collection[str]) -> None:
        """Find those that are gone. What is registered of `own` consumers of this launcher stays as long as it
        lives."""
        found = self._redis.hgetall(self._keys.worker_queues)
        self._queues = {
            str(name): str(queue) for queue, name in found.items() if self._settings.queues.is_this_version(str(queue))
        }
        registered = self._gone_consumers.registered()
        consumers = sorted({*registered, *(collector_name(_box(name)) for name in self._queues)})
        with self._redis.pipeline(transaction=False) as pipe:
            for consumer in consumers:
                pipe.hget(self._keys.process_heartbeats, self._keys.process_heartbeat(consumer, PARENT))
                pipe.pttl(self._keys.box_lease(_box(consumer)))
            answers: list[Any] = pipe.execute()
        before, self._seen = self._seen, {}
        for consumer, heartbeat, left_ms in zip(consumers, answers[::2], answers[1::2], strict=True):
            self._seen[consumer] = (heartbeat or "", left_ms != NO_KEY)
            # Another box may have a longer CLONER_STOP_S than this one.
            max_s = max(MAX_LEASE_S, longest_lease_s(self._settings))
            shorten(self._redis, self._keys.box_lease(_box(consumer)), left_ms, max_s)
        gone = {name for name, seen in self._seen.items() if self._is_gone(name, seen, before.get(name))}
        # Workers of another wire version alone keep their messages: no worker of this one can read them.
        self._gone = {name for name in gone if name in self._queues or is_collector(name) or is_reviewer(name)}
        present = {name for name, seen in self._seen.items() if self._is_present(name, seen, before.get(name))}
        self._gone_consumers.note((gone & registered).difference(own), present.union(own))
        for name in self._gone_consumers.forget():
            self._log(Event.GONE_FOR_GOOD.line(holder=one_line(name)))

    def _is_gone(self, consumer: str, seen: tuple[str, bool], before: tuple[str, bool] | None) -> bool:
        heartbeat, is_held = seen
        if _box(consumer) == self._settings.box:
            return not exists(pid_of(heartbeat)) or (before is not None and before[0] == heartbeat)
        return not is_held and seen == before

    def _is_present(self, consumer: str, seen: tuple[str, bool], before: tuple[str, bool] | None) -> bool:
        """Whether it is not gone for sure: at the first scan, it may be either."""
        if _box(consumer) == self._settings.box:
            return not self._is_gone(consumer, seen, before)
        return seen[1] or (before is not None and seen != before)

    def _take_over(self, consumer: str) -> None:
        count = self._requeuer.requeue(consumer)
        where = "their queue"
        if queue := self._queues.get(consumer):  # all collectors read one queue, and all reviewers another
            # Includes what was just requeued.
            count, where = move(self._redis, queue, self._settings.queues.shared_queue()), "the shared queue"
        if count:
            self._log(Event.MESSAGES_TAKEN_OVER.line(holder=consumer, queue=where, count=count))


def _box(consumer: str) -> str:
    return consumer.rpartition("@")[2]
