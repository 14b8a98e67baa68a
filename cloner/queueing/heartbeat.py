"""Heartbeats of both processes of a worker or collector, which the launcher checks.

A thread in Celery's parent process and one in its child send them. It stops only where the process is frozen: a busy
interpreter delays it by less than a second, and it goes on while the parent waits for an outage of Redis to end.

Celery imports this module in every process of a worker, as `app.run_worker` sets.
"""

from __future__ import annotations

import os
import threading
from itertools import count
from typing import Any

from celery.signals import worker_process_init
from redis import RedisError

from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CHILD
from cloner.process import LEASE, die_with_group, die_with_parent
from cloner.settings import Settings, load_settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.keys import RedisKeys

CONSUMER = "CLONER_CONSUMER"
"""Environment variable by which the child process gets the name under which its parent takes messages."""


def start_heartbeat(settings: Settings, consumer: str, part: str) -> None:
    """Send heartbeats until the process ends: its id and a count that grows.

    Kills it, with all that it started, when another launcher than its own holds the box: that one starts another
    process of the same name, and the unacknowledged messages of the two would be mixed.
    """
    redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    keys = RedisKeys(settings.fleet)
    field = keys.process_heartbeat(consumer, part)
    lease = os.environ.get(LEASE)

    def beat() -> None:
        for number in count():
            try:
                held_by = redis.get(keys.box_lease(settings.box))
                if lease and held_by and held_by != lease:
                    log_event(Event.BOX_TAKEN_OVER)
                    die_with_group()
                redis.hset(keys.process_heartbeats, field, f"{os.getpid()} {number}")
            except RedisError as error:
                log_event(Event.PROCESS_HEARTBEAT_MISSED, error=error)
            threading.Event().wait(settings.heartbeat_s)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child process: have it end with its parent, and start its heartbeat before it does anything else."""
    die_with_parent()
    start_heartbeat(load_settings(), os.environ[CONSUMER], CHILD)
