"""Start and end of a worker's processes: the child loads its models once, when it starts.

Celery swallows an exception in ``worker_process_init``, and would run chunks without a model. So a load that fails
signals the parent, whose handler stops the whole worker with exit status 78; the launcher does not start it again. The
same signal ends a worker whose model loads, but can generate nothing.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import celery.worker.state
from billiard.common import TERM_SIGNAL
from celery.signals import worker_process_init, worker_process_shutdown
from redis import RedisError

from cloner.engine import make_engine
from cloner.errors import EXIT_LOAD_FAILED, ClonerError, EngineBroken, WorkerBroken, reason_of
from cloner.events import Event
from cloner.logs import configure, log_event
from cloner.output.lock import share_output_lock
from cloner.queueing import heartbeat
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


def exit_on_give_up() -> None:
    """In the parent: exit with status 78 when the child gives the worker up. Its queue keeps its messages."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        celery.worker.state.should_terminate = EXIT_LOAD_FAILED

    signal.signal(signal.SIGUSR2, stop)


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
    _end_by(signal.SIGUSR2)


def _end_by(number: signal.Signals) -> NoReturn:
    """Signal the parent to end this worker, and block until it does; log nothing and accept no task.

    The parent ends the child by SIGQUIT. Celery's children ignore it while they load, so its default action is
    restored.
    """
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would write the model to the disk
    os.kill(os.getppid(), number)
    while True:
        signal.pause()


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
        # Redis cannot be used, and the model may be fine: after SIGTERM, the launcher starts the worker again.
        _end_by(signal.SIGTERM if isinstance(error, RedisError) else signal.SIGUSR2)
    else:
        _worker = worker


@worker_process_shutdown.connect
def end(**_: Any) -> None:
    """In the child: release the models."""
    if _worker is not None:
        _worker.close()
