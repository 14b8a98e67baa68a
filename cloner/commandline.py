"""What both command lines do around their commands. Imports next to nothing, so that it is there first."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cloner.errors import ClonerError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr)


@contextmanager
def report_errors(say: Callable[[str], object] = _to_stderr) -> Iterator[None]:
    """Inside it, an error of ours is one sentence and its exit status; Ctrl-C, SIGTERM and a closed terminal end with a
    line, too.

    What the signals interrupt is left in order, and the exit status is the shell's own for them: 130, 143, 129.
    Signals that are ignored, as under nohup, stay so. `say` takes the sentence.
    """
    stops = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in stops}
    try:
        yield
    except ClonerError as error:
        say(error.message)
        sys.exit(error.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    # Not print: the signal may have come in the middle of one.
    os.write(2, f"Stopped by {signal.Signals(number).name}\n".encode())
    sys.exit(128 + number)
