"""A client that waits for a batch in a process of its own, and may be killed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from cloner.settings import Settings
from tests.support.processes import LoggedProcess, environment


class WaitingClient:
    """Runs ``cloner wait`` for a batch."""

    def __init__(self, settings: Settings, batch_id: str, folder: Path) -> None:
        self._settings = settings
        self._batch_id = batch_id
        self._folder = folder
        self._process = self._start()

    def kill_and_replace(self) -> None:
        """Kill the process, and start another."""
        killed, self._process = self._process, self._start()
        killed.stop(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end of the last process; returns its exit status."""
        return self._process.wait()

    def _start(self) -> LoggedProcess:
        command = [sys.executable, "-m", "cloner", "wait", self._batch_id]
        return LoggedProcess(command, environment(self._settings), self._folder)
