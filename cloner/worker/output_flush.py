"""Flushing a chunk's outputs to the disk while it runs, so that at its end nearly all of them are there."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from cloner.errors import RecordFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.flush import flush_file_system

FLUSH_INTERVAL_S = 1.0
"""Seconds between two flushes while files are written."""


class OutputFlush:
    """A context manager around a run of a chunk: at the chunk's end, all that was written is on the disk.

    The chunk does not end where the process is stopped or its engine breaks.

    It flushes from a thread of its own, since a flush of all files at the end would keep the engine waiting.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._over = threading.Event()
        self._written = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._flush_regularly, name="flush", daemon=True)

    def written(self) -> None:
        """Note that a file was written."""
        self._written.set()

    def __enter__(self) -> OutputFlush:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if error is None or isinstance(error, RecordFailed):
            self._thread.join()
            self._flush()

    def _flush_regularly(self) -> None:
        while not self._over.wait(FLUSH_INTERVAL_S):
            self._flush()

    def _flush(self) -> None:
        """Flush what was written since the last flush.

        The first error of a chunk is logged, and no more: the files are there for all to read.
        """
        if not self._written.is_set():
            return
        self._written.clear()
        try:
            flush_file_system(self._root)
        except OSError as error:
            if not self._has_failed:
                log_event(Event.OUTPUTS_NOT_FLUSHED, folder=self._root, error=error)
            self._has_failed = True
