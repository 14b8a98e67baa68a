"""What Celery logs about lost connections and dead child processes, and what the filters leave of it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery.exceptions import CPendingDeprecationWarning
from redis.exceptions import ConnectionError as RedisConnectionError

from cloner.events import Event
from cloner.queueing.log_filters import CONNECTION, CONSUMER, REQUEST, WORKER, DeadProcessFilter, add_filters


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """What the root logger's one handler prints, set up as Celery does."""
    root, printed = logging.getLogger(), io.StringIO()
    before = root.handlers[:]
    root.handlers = [logging.StreamHandler(printed)]
    add_filters(logger=root)
    yield printed
    root.handlers = before
    logging.captureWarnings(False)


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    printed: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = RedisConnectionError("Connection refused.")
    for _ in range(2):
        logging.getLogger(CONNECTION).info("Connected to %s", "redis://host")
        logging.getLogger(CONSUMER).warning("%s (%r)", "Connection to broker lost.", lost)
        for second in (2, 4):
            logging.getLogger(CONSUMER).error("Cannot connect to %s: %s.\n%s\n", "redis://host", lost, second)
    logging.getLogger(CONNECTION).info("Connected to %s", "redis://host")
    away = Event.REDIS_AWAY.line(error="Connection refused.")
    assert capsys.readouterr().err.splitlines() == [away, Event.REDIS_BACK.line()] * 2
    assert not printed.getvalue()


def test_only_the_traceback_of_a_lost_connection_is_dropped(printed: io.StringIO) -> None:
    for error in (RedisConnectionError("gone"), ValueError("a fault")):
        try:
            raise error
        except (RedisConnectionError, ValueError):
            logging.getLogger("celery.worker.request").exception("Couldn't ack")
    logging.getLogger(CONSUMER).error("Received an unknown message: %s", "body")
    assert printed.getvalue().startswith("Couldn't ack\nCouldn't ack\nTraceback")
    assert printed.getvalue().endswith("ValueError: a fault\nReceived an unknown message: body\n")


def test_of_warnings_only_those_about_celerys_next_version_are_dropped(printed: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("In Celery 6.0 ...", CPendingDeprecationWarning, stacklevel=1)
        warnings.warn("the disk is nearly full", UserWarning, stacklevel=1)
    assert "the disk is nearly full" in printed.getvalue()
    assert "Celery 6.0" not in printed.getvalue()


def record(name: str, *args: Any) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, "Task handler raised error: %r", args, None)


@pytest.mark.parametrize("how", ["signal 9 (SIGKILL)", "exitcode 75"])
def test_a_dead_child_process_is_one_line(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not DeadProcessFilter().filter(record(REQUEST, WorkerLostError(f"Worker exited prematurely: {how} Job: 3.")))
    assert capsys.readouterr().err == f"{Event.CHILD_DIED.line(how=how)}\n"


def test_a_worker_that_cannot_start_its_child_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    why = "Could not start worker processes"
    assert not DeadProcessFilter().filter(record(WORKER, WorkerLostError(why)))
    assert capsys.readouterr().err == f"{Event.CHILD_NOT_STARTED.line(error=why)}\n"


def test_other_records_are_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    failed = record(REQUEST, ValueError("x"))
    assert DeadProcessFilter().filter(failed)
    assert failed.getMessage() == "Task handler raised error: ValueError('x')"
    lost = record("another", WorkerLostError("Worker exited prematurely: exitcode 1 Job: 3."))
    assert DeadProcessFilter().filter(lost)
    assert lost.getMessage().startswith("Task handler raised error: WorkerLostError")
    assert not capsys.readouterr().err
