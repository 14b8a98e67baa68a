"""How a process of a worker, collector or reviewer ends the whole of it: by a signal to its parent.

Celery swallows an exception in ``worker_process_init``, and would run tasks without a model.
"""

from __future__ import annotations

import os
import resource
import signal
from types import FrameType
from typing import NoReturn

import celery.worker.state
from redis import Redis, RedisError

from cloner.errors import EXIT_LOAD_FAILED
from cloner.events import Event
from cloner.logs import log_event
from cloner.settings import Settings
from cloner.state.damage import is_wrong_type
from cloner.state.key_types import wrong_type


def exit_on_give_up() -> None:
    """In the parent: exit with status 78 when the child gives up. Its queue keeps its messages."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        celery.worker.state.should_terminate = EXIT_LOAD_FAILED

    signal.signal(signal.SIGUSR2, stop)


def stop_if_damaged(error: Exception, redis: Redis, settings: Settings, consumer: str, parent: int) -> bool:
    """Whether Redis has refused a command at a key of a wrong type. That does not pass: the key is logged, and the
    process `parent`, Celery's own, is stopped as by SIGTERM."""
    if not (isinstance(error, RedisError) and is_wrong_type(error)):
        return False
    log_event(Event.FAILED, error=wrong_type(error, redis, settings, [consumer]).message)
    os.kill(parent, signal.SIGTERM)
    return True


def give_up(error: Exception | None = None) -> NoReturn:
    """In the child: have the parent exit with status 78, and block until it ends this process; log nothing and accept
    no task.

    After an `error` of Redis the parent gets SIGTERM: the models may be fine, and the launcher starts them again. The
    parent ends the child by SIGQUIT. Celery's children ignore it while they load, so its default action is restored.
    """
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would write the model to the disk
    os.kill(os.getppid(), signal.SIGTERM if isinstance(error, RedisError) else signal.SIGUSR2)
    while True:
        signal.pause()
