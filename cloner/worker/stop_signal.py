"""Reacting to a stop signal at once, whatever the main thread does.

Python runs signal handlers in the main thread, between two steps of the interpreter. One step may take longer than the
launcher waits before it kills the process, and then no handler runs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from billiard.common import TERM_SIGNAL


def on_stop_signal(callback: Callable[[], None]) -> None:
    """Call `callback` from a thread of its own when this process gets the signal by which Celery ends it.

    The interpreter writes a signal's number to a pipe as it arrives. Call this in the main thread.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def listen() -> None:
        while numbers := os.read(read, 64):
            if TERM_SIGNAL in numbers:
                callback()

    threading.Thread(target=listen, name="stop-signal", daemon=True).start()
