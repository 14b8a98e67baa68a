"""Being told to stop, heard at once, whatever the main thread is doing.

Python runs a signal's handler between two of its own steps. The main thread may be in the middle of one that takes
longer than the launcher's patience, and then it is killed without having heard anything.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from billiard.common import TERM_SIGNAL


def hear_stops(told: Callable[[], None]) -> None:
    """Call `told` from a thread of its own when Celery asks this process to end, which it does by that signal.

    The interpreter writes a signal's number to a pipe as it arrives. Call it in the main thread.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def listen() -> None:
        while numbers := os.read(read, 64):
            if TERM_SIGNAL in numbers:
                told()

    threading.Thread(target=listen, name="stops", daemon=True).start()
