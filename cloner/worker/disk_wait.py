"""Waiting while the disk under the outputs cannot be used: it is full, or fails for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from cloner.errors import OutputUnavailable, RecordFull, RecordUnavailable
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import DISK_INTERVAL_S
from cloner.worker.cancellation import Cancellation
from cloner.worker.worker_process import WorkerProcess

T = TypeVar("T")

LINE_BYTES = 4096
"""More than a line of the record takes."""


class DiskWait:
    """Waits for the disk during one run of a chunk: for room without end, after other errors `disk_wait_s` in total.

    Meanwhile the engine is paused, and the hang check does not fire.
    """

    def __init__(self, worker: WorkerProcess, cancellation: Cancellation) -> None:
        self._worker = worker
        self._cancellation = cancellation
        self._left_s = worker.settings.disk_wait_s
        self.failure = ""
        """The error at the last try, if the disk still failed when the time was over; else empty."""

    def retry(self, work: Callable[[], T]) -> T:
        """Do something on the disk; while it fails and that may pass, wait and do it again.

        Returns what `work` returns. Raises `RecordFull`, `RecordUnavailable` or `OutputUnavailable` if the batch is
        cancelled meanwhile, and the last two if the time is over.
        """
        failing = False
        with ExitStack() as stack:
            while True:
                try:
                    result = work()
                    break
                except RecordFull:
                    if not self.wait_for_room(LINE_BYTES):
                        raise
                except (RecordUnavailable, OutputUnavailable) as error:
                    if not failing:
                        failing = True
                        stack.enter_context(self._cancellation.paused())
                        log_event(Event.DISK_FAILS, error=error.message, left_s=self._left_s)
                    if not self._wait(error.message):
                        raise
            if failing:
                log_event(Event.DISK_WORKS, folder=self._worker.outputs.root)
        return result

    def wait_for_room(self, size: int) -> bool:
        """Wait until a file of `size` bytes fits; returns false if the batch is cancelled meanwhile."""
        outputs = self._worker.outputs
        log_event(Event.DISK_FULL, folder=outputs.root)
        with self._cancellation.paused():
            while not self._cancellation.wait(DISK_INTERVAL_S):
                self._worker.note_step()
                if outputs.has_room(size):
                    log_event(Event.DISK_HAS_ROOM, folder=outputs.root)
                    return True
        return False

    def _wait(self, error: str) -> bool:
        """Wait until the next try; returns false if there is none, since the time is over or the batch is cancelled."""
        if self._left_s <= 0:
            self.failure = error
            return False
        began = time.monotonic()
        cancelled = self._cancellation.wait(min(DISK_INTERVAL_S, self._left_s))
        self._left_s -= time.monotonic() - began
        self._worker.note_step()
        return not cancelled
