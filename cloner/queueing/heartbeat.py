"""Vitals of life of each process of a worker or collector, for the launcher to see.

A thread beats in both, Celery's parent and the child: it stops where the process is frozen, and only there. A busy
interpreter holds it up by less than a second; a parent that waits for Redis to come back goes on beating.

Celery imports this module in every process of a worker (`app.run_worker` tells it to).
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

HOLDER = "CLONER_HOLDER"
"""Environment variable in which the parent tells its child under what name the two hold messages."""


def start_heartbeat(settings: Settings, holder: str, part: str) -> None:
    """Show signs of life until the process ends: its id and a count that grows.

    And end it, with all that it started, when another launcher than its own has the box: that one starts another
    process of the same name, and what both take would be in one hand.
    """
    redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    keys = RedisKeys(settings.fleet)
    field = keys.process_heartbeat(holder, part)
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

    threading.Thread(target=beat, name="pulse", daemon=True).start()


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child: end with the parent, and beat before anything else is done."""
    die_with_parent()
    start_heartbeat(load_settings(), os.environ[HOLDER], CHILD)
