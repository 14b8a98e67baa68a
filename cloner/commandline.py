"""Errors and signals of both command lines. Imports little, so that it is in place before the slow imports."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cloner.errors import ClonerError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


@contextmanager
def report_errors(report: Callable[[str], object] = _to_stderr) -> Iterator[None]:
    """Turn a `ClonerError` into a call of `report` with its message, and its exit status.

    SIGINT, SIGTERM and SIGHUP raise `SystemExit` with the shell's status for them (130, 143, 129), after one line on
    standard error, so that ``finally`` blocks run. Signals that are ignored, as under nohup, stay so.
    """
    stops = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in stops}
    try:
        yield
    except ClonerError as error:
        report(error.message)
        sys.exit(error.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    # Not print: the signal may have interrupted one.
    os.write(2, f"Stopped by {signal.Signals(number).name}\n".encode())
    sys.exit(128 + number)
