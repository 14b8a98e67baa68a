"""Start and end of a worker's processes: the child loads its models once, when it starts.

A load that fails ends the whole worker with exit status 78 (`cloner/queueing/given_up.py`); the launcher does not start
it again. A worker whose model loads, but can generate nothing, ends in the same way.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from billiard.common import TERM_SIGNAL
from celery.signals import worker_process_init, worker_process_shutdown
from redis import RedisError

from cloner.engine import make_engine
from cloner.errors import ClonerError, EngineBroken, WorkerBroken, reason_of
from cloner.events import Event
from cloner.logs import configure, log_event
from cloner.output.lock import share_output_lock
from cloner.queueing import heartbeat
from cloner.queueing.given_up import give_up
from cloner.queueing.stop_signal import on_signal
from cloner.settings import Settings, load_settings, load_worker_settings
from cloner.state.connection import OUTAGE_RETRIES, connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerInfo, expected_worker

if TYPE_CHECKING:
    from cloner.worker.worker_process import WorkerProcess

_worker: WorkerProcess | None = None


def current() -> WorkerProcess:
    """This child process's worker. Raises `ClonerError` before its models are loaded.

    Celery starts the process and calls its tasks, so no caller could pass the worker on.
    """
    if _worker is None:
        raise ClonerError("this process has not loaded a model")
    return _worker


def register_if_unknown(settings: Settings, worker: WorkerInfo) -> None:
    """Register this worker unless a launcher has: it may have been started by hand."""
    registry = Registry(connect(settings.require_redis_url()), RedisKeys(settings.fleet), settings.alive_s)
    if registry.get(worker.name) is None:
        registry.register(worker)


def end_process(error: EngineBroken) -> NoReturn:
    """In the child: end at once, so that a fresh process runs the chunk again.

    Celery requeues the chunk of a process that has ended, whatever its exit status (`task_reject_on_worker_lost`), and
    starts another process. Nothing is closed: closing a broken GPU context may hang.
    """
    log_event(Event.ENGINE_RELOADING, error=error.message)
    sys.stderr.flush()
    os._exit(error.exit_code)


def end_worker(worker: WorkerProcess, error: WorkerBroken) -> NoReturn:
    """In the child: end the whole worker, as another process would fail too; the registry gets the reason."""
    log_event(Event.WORKER_BROKEN, error=error.message)
    with suppress(RedisError):
        worker.registry.update(worker.name, error=error.message)
    give_up()


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child: load the models, or end the worker."""
    global _worker  # noqa: PLW0603 - see current()
    from cloner.worker.worker_process import WorkerProcess  # it loads numpy, which the parent has no use for

    settings = load_settings()
    place = load_worker_settings()
    info = expected_worker(settings, place)
    configure(worker=info.name)
    url = settings.require_redis_url()
    redis = connect(url, retries=OUTAGE_RETRIES)
    blobs = connect(url, decode=False, retries=OUTAGE_RETRIES)
    try:
        worker = WorkerProcess(settings, info, make_engine(settings, info.device, place.memory_gb), redis, blobs)
        share_output_lock(settings.out_dir, settings.fleet)
        on_signal([TERM_SIGNAL], worker.end_run)
        heartbeat.of_child().add(worker.beat)
        worker.load()
    except Exception as error:  # noqa: BLE001 - after any error, a worker without a model must not run on
        reason = reason_of(error)
        log_event(Event.LOAD_FAILED, error=reason)
        with suppress(RedisError):
            Registry(redis, RedisKeys(settings.fleet), settings.alive_s).update(info.name, error=reason)
        give_up(error)
    else:
        _worker = worker


@worker_process_shutdown.connect
def end(**_: Any) -> None:
    """In the child: release the models."""
    if _worker is not None:
        _worker.close()
