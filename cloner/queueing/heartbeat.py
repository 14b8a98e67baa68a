"""Heartbeats of both processes of a worker or collector, which the launcher checks.

One thread in Celery's parent process and one in its child send them, and with them what else the process reports: a
worker's state, its count of steps and its counters, or that a collector is alive. It stops only where the process is
frozen: a busy interpreter delays it by less than a second, and it goes on while the parent waits for an outage of Redis
to end.

Celery imports this module in every process of a worker, as `app.run_worker` sets.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from celery.signals import worker_process_init
from redis import RedisError

from cloner.errors import ClonerError
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CHILD, PARENT
from cloner.process import LEASE, die_with_group, die_with_parent
from cloner.queueing.given_up import stop_if_damaged
from cloner.settings import Settings, load_settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry

CONSUMER = "CLONER_CONSUMER"
"""Environment variable by which the child process gets the name under which its parent takes messages."""


class Heartbeat:
    """Sends heartbeats of this process, from a thread that runs until the process ends: its id and a count that grows.

    It kills the process, with all that it started, when another launcher than its own holds the box: that one starts
    another process of the same name, and the unacknowledged messages of the two would be mixed.
    """

    def __init__(self, settings: Settings, consumer: str, part: str) -> None:
        # It waits for no outage to end: heartbeats are missed then.
        redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
        self._settings = settings
        self._consumer = consumer
        self._parent = os.getpid() if part == PARENT else os.getppid()
        self._registry = Registry(redis, RedisKeys(settings.fleet), settings.alive_s)
        self._field = self._registry.keys.process_heartbeat(consumer, part)
        self._lease = os.environ.get(LEASE)
        self._others: list[Callable[[Registry], object]] = []
        self._due = threading.Event()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def add(self, send: Callable[[Registry], object]) -> None:
        """Call `send` with each heartbeat, the first time at once. It may raise `RedisError` and `ClonerError`."""
        self._others.append(send)
        self._due.set()

    def _run(self) -> None:
        for number in count():
            sends: list[Callable[[Registry], object]] = [partial(self._beat, number), *self._others]
            for send in sends:
                try:
                    send(self._registry)
                except (RedisError, ClonerError) as error:
                    if stop_if_damaged(error, self._registry.redis, self._settings, self._consumer, self._parent):
                        return
                    # During an outage of Redis, or where it holds values that make no sense, the process goes on.
                    log_event(Event.HEARTBEAT_MISSED, error=error)
            self._due.wait(self._settings.heartbeat_s)
            self._due.clear()

    def _beat(self, number: int, registry: Registry) -> None:
        holder = registry.redis.get(registry.keys.box_lease(self._settings.box))
        if self._lease and holder and holder != self._lease:
            log_event(Event.BOX_TAKEN_OVER)
            die_with_group()
        registry.redis.hset(registry.keys.process_heartbeats, self._field, f"{os.getpid()} {number}")


_of_child: Heartbeat | None = None


def of_child() -> Heartbeat:
    """The heartbeat of this child process. Raises `ClonerError` in any other process."""
    if _of_child is None:
        raise ClonerError("this is no child process of a worker or collector")
    return _of_child


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child process: have it end with its parent, and start its heartbeat before it does anything else."""
    global _of_child  # noqa: PLW0603 - Celery starts the process, so no caller could pass it on
    die_with_parent()
    _of_child = Heartbeat(load_settings(), os.environ[CONSUMER], CHILD)
