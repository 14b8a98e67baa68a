"""Reacting to a stop signal at once, whatever the main thread does.

Python runs signal handlers in the main thread, between two steps of the interpreter. One step may take longer than the
launcher waits before it kills the process, and then no handler runs; and Celery's handlers may never return.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection

from celery.platforms import EX_FAILURE

from cloner.events import Event
from cloner.logs import log_event


def on_signal(numbers: Collection[int], callback: Callable[[], None]) -> None:
    """Call `callback` from a thread of its own when this process gets one of the signals; once a process.

    The interpreter writes a signal's number to a pipe as it arrives. Call this in the main thread.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def listen() -> None:
        while arrived := os.read(read, 64):
            if not set(numbers).isdisjoint(arrived):
                callback()

    threading.Thread(target=listen, name="stop-signal", daemon=True).start()


def end_after_stop_signal(stop_s: float) -> None:
    """End this process `stop_s` seconds after SIGTERM or SIGQUIT, if it has not ended by then.

    While Redis is frozen, Celery waits without end for a reply to its own heartbeat; and if the signal interrupts that,
    its handler waits for a lock that the interrupted code holds.
    """

    def end() -> None:
        time.sleep(stop_s)
        log_event(Event.NOT_STOPPED, stop_s=stop_s)
        os._exit(EX_FAILURE)

    on_signal((signal.SIGTERM, signal.SIGQUIT), end)
