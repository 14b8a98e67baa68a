"""The line that a parent process logs when its child process has died."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from cloner.events import Event
from cloner.queueing.log_filters import REQUEST, Lost


def record(name: str, *args: Any) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, "Task handler raised error: %r", args, None)


@pytest.mark.parametrize("how", ["signal 9 (SIGKILL)", "exitcode 75"])
def test_a_lost_process_is_one_line(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not Lost().filter(record(REQUEST, WorkerLostError(f"Worker exited prematurely: {how} Job: 3.")))
    assert capsys.readouterr().err == f"{Event.CHILD_DIED.line(how=how)}\n"


def test_other_records_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    failed = record(REQUEST, ValueError("x"))
    assert Lost().filter(failed)
    assert failed.getMessage() == "Task handler raised error: ValueError('x')"
    lost = record("another", WorkerLostError("Worker exited prematurely: exitcode 1 Job: 3."))
    assert Lost().filter(lost)
    assert lost.getMessage().startswith("Task handler raised error: WorkerLostError")
    assert not capsys.readouterr().err
