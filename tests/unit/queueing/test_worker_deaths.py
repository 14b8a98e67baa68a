"""The parent's word of a process that has died."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from cloner.queueing.log_filters import REQUEST, Lost


def record(name: str, *args: Any) -> logging.LogRecord:
    told = logging.LogRecord(name, logging.ERROR, __file__, 1, "Task handler raised error: %r", args, None)
    assert Lost().filter(told)
    return told


@pytest.mark.parametrize("how", ["signal 9 (SIGKILL)", "exitcode 75"])
def test_a_lost_process_is_one_sentence(how: str) -> None:
    told = record(REQUEST, WorkerLostError(f"Worker exited prematurely: {how} Job: 3."))
    assert told.getMessage() == f"The process with the model died ({how}): its chunk goes back to the queue"


def test_other_words_stay_as_they_are() -> None:
    assert record(REQUEST, ValueError("x")).getMessage() == "Task handler raised error: ValueError('x')"
    lost = WorkerLostError("Worker exited prematurely: exitcode 1 Job: 3.")
    assert record("another", lost).getMessage().startswith("Task handler raised error: WorkerLostError")
