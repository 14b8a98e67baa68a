"""What both command lines do around their commands. Imports next to nothing, so that it is there first."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cloner.errors import ClonerError


@contextmanager
def sentences() -> Iterator[None]:
    """Inside it, an error of ours is one sentence and its exit status; Ctrl-C and SIGTERM end with a line, too.

    What the signals interrupt is left in order, and the exit status is the shell's own for them: 130 and 143.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except ClonerError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    print(f"Stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)
