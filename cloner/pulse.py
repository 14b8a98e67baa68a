"""Signs of life of each process of a worker or collector, for the launcher to see.

A thread beats in both, Celery's parent and the child: it stops where the process is frozen, and only there. A busy
interpreter holds it up by less than a second; a parent that waits for Redis to come back goes on beating.

Celery imports this module in every process of a worker (`app.run_worker` tells it to).
"""

from __future__ import annotations

import os
import threading
from enum import StrEnum
from itertools import count
from typing import Any

from celery.signals import worker_process_init
from redis import RedisError

from cloner.logs import get_logger
from cloner.orphan import die_with_parent
from cloner.redisconn import HASTE_S, connect
from cloner.settings import Settings, load_settings

HOLDER = "CLONER_HOLDER"
"""Environment variable in which the parent tells its child under what name the two hold messages."""


class Part(StrEnum):
    """The two processes of a worker or collector."""

    PARENT = "parent"
    CHILD = "child"


def beat_from_now_on(settings: Settings, holder: str, part: Part) -> None:
    """Show signs of life until the process ends: its id and a count that grows."""
    redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    field = settings.names.pulse(holder, part)

    def beat() -> None:
        for number in count():
            try:
                redis.hset(settings.names.pulses, field, f"{os.getpid()} {number}")
            except RedisError as error:
                get_logger().debug(f"pulse missed: {error}")
            threading.Event().wait(settings.heartbeat_s)

    threading.Thread(target=beat, name="pulse", daemon=True).start()


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child: end with the parent, and beat before anything else is done."""
    die_with_parent()
    beat_from_now_on(load_settings(), os.environ[HOLDER], Part.CHILD)
