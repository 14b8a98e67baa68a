"""A worker's life: load once when the child starts, say so, let go when it ends.

Celery swallows an exception in ``worker_process_init`` and would run chunks without a model. So a load that fails
signals the parent, whose handler stops the whole worker with an exit status of its own; the launcher does not start
it again. The same ends a worker whose model loads, and breaks whatever it speaks.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import celery.worker.state
from celery.signals import worker_process_init, worker_process_shutdown
from redis import RedisError

from cloner.engine import make_engine
from cloner.errors import EXIT_LOAD_FAILED, ClonerError, EngineBroken, WorkerBroken, reason_of
from cloner.events import Event
from cloner.logs import configure, log_event
from cloner.settings import Settings, load_settings, load_worker_settings
from cloner.state.connection import OUTAGE_RETRIES, connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerInfo, expected_worker
from cloner.worker.runtime import Runtime
from cloner.worker.stopping import hear_stops

_runtime: Runtime | None = None


def current() -> Runtime:
    """This child process's runtime. Celery makes the process and calls tasks in it, so there is no one to hand it
    on."""
    if _runtime is None:
        raise ClonerError("this process has not loaded a model")
    return _runtime


def register_if_alone(settings: Settings, worker: WorkerInfo) -> None:
    """Enter this worker into the registry if no launcher has (it was started by hand)."""
    registry = Registry(connect(settings.require_redis_url()), RedisKeys(settings.fleet), settings.alive_s)
    if registry.get(worker.name) is None:
        registry.register(worker)


def stop_when_useless() -> None:
    """In the parent: a child for which there is no hope stops the whole worker; what is queued stays in its queue."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        celery.worker.state.should_terminate = EXIT_LOAD_FAILED

    signal.signal(signal.SIGUSR2, stop)


def end_broken(error: EngineBroken) -> NoReturn:
    """In the child: end at once, so that a fresh process takes the chunk up again.

    Celery gives a chunk back whose process has ended, whatever its exit status (`task_reject_on_worker_lost`), and
    starts another. Nothing is closed: what broke, as a GPU's context, may hang at that.
    """
    log_event(Event.ENGINE_RELOADING, error=error.message)
    sys.stderr.flush()
    os._exit(error.exit_code)


def end_worker(runtime: Runtime, error: WorkerBroken) -> NoReturn:
    """In the child: end the whole worker, which would fare no better with another process; its launcher is told why."""
    log_event(Event.WORKER_BROKEN, error=error.message)
    with suppress(RedisError):
        runtime.registry.update(runtime.name, error=error.message)
    _end_by(signal.SIGUSR2)


def _end_by(number: signal.Signals) -> NoReturn:
    """Have the parent end this worker. Not a word more, and no task taken, until it does: it asks by SIGQUIT, which
    Celery has its children ignore while they load, and which must not be answered as a stop is."""
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the model would go to the disk
    os.kill(os.getppid(), number)
    while True:
        signal.pause()


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child: load the models, or end the worker."""
    global _runtime  # noqa: PLW0603 - see current()
    settings = load_settings()
    place = load_worker_settings()
    worker = expected_worker(settings, place)
    configure(worker=worker.name)
    url = settings.require_redis_url()
    redis = connect(url, retries=OUTAGE_RETRIES)
    blobs = connect(url, decode=False, retries=OUTAGE_RETRIES)
    try:
        runtime = Runtime(settings, worker, make_engine(settings, worker.device, place.memory_gb), redis, blobs)
        hear_stops(runtime.told_to_stop)
        runtime.start_beating()
        runtime.load()
    except Exception as error:  # noqa: BLE001 - whatever it is, a worker without a model must not live
        reason = reason_of(error)
        log_event(Event.LOAD_FAILED, error=reason)
        with suppress(RedisError):
            Registry(redis, RedisKeys(settings.fleet), settings.alive_s).update(worker.name, error=reason)
        # A Redis that cannot be used is no fault of the model's: told to stop, the worker is started again.
        _end_by(signal.SIGTERM if isinstance(error, RedisError) else signal.SIGUSR2)
    else:
        _runtime = runtime


@worker_process_shutdown.connect
def end(**_: Any) -> None:
    """In the child: let go of the models."""
    if _runtime is not None:
        _runtime.close()
