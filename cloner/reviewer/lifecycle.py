"""Start of a reviewer's processes: the child loads the models once, when it starts."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NoReturn

from celery.signals import worker_process_init
from redis import RedisError

from cloner.errors import ClonerError, WorkerBroken, reason_of
from cloner.events import Event
from cloner.logs import configure, log_event
from cloner.queueing import heartbeat
from cloner.queueing.given_up import give_up
from cloner.reviewer.reviewer_process import ReviewerProcess
from cloner.settings import Settings, load_settings
from cloner.state.connection import OUTAGE_RETRIES, connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_reviewer

_reviewer: ReviewerProcess | None = None


def current() -> ReviewerProcess:
    """This child process's reviewer. Raises `ClonerError` before its models are loaded.

    Celery starts the process and calls its tasks, so no caller could pass the reviewer on.
    """
    if _reviewer is None:
        raise ClonerError("this process has not loaded the models")
    return _reviewer


def register_if_unknown(settings: Settings, name: str) -> None:
    """Register this reviewer unless a launcher has: it may have been started by hand."""
    redis = connect(settings.require_redis_url())
    entries = Registry(redis, RedisKeys(settings.fleet), settings.alive_s).reviewer_entries
    if entries.get(name) is None:
        entries.register(expected_reviewer(settings, name))


def end_reviewer(reviewer: ReviewerProcess, error: WorkerBroken) -> NoReturn:
    """In the child: end the whole reviewer, as another process would fail too; the registry gets the reason. Its take
    goes back to the queue."""
    log_event(Event.REVIEWER_BROKEN, error=error.message)
    with suppress(RedisError):
        reviewer.entries.update(reviewer.name, error=error.message)
    give_up()


@worker_process_init.connect
def start(**_: Any) -> None:
    """In the child: load the models, or end the reviewer."""
    global _reviewer  # noqa: PLW0603 - see current()
    settings = load_settings()
    name = os.environ[heartbeat.CONSUMER]
    configure(worker=name)
    reviewer = ReviewerProcess(settings, name, connect(settings.require_redis_url(), retries=OUTAGE_RETRIES))
    try:
        heartbeat.of_child().add(reviewer.beat)
        reviewer.load()
    except Exception as error:  # noqa: BLE001 - after any error, a reviewer without models must not run on
        reason = reason_of(error)
        log_event(Event.LOAD_FAILED, error=reason)
        with suppress(RedisError):
            reviewer.entries.update(name, error=reason)
        give_up(error)
    else:
        _reviewer = reviewer
