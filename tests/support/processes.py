"""Processes of the product that tests start: their settings, their log, their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloner.events import Event
from cloner.settings import Settings
from tests.support.log_lines import find_lines
from tests.support.polling import TIMEOUT_S


class LoggedProcess:
    """A running process, and the lines of its standard error."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command, env={**os.environ, **env}, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def find(self, event: Event, child: str = "", **fields: object) -> list[str]:
        """The event's lines so far; `child` and `fields` are as in `find_lines`."""
        return find_lines(self.lines, event, child, **fields)

    def wait_for(self, event: Event, times: int = 1, child: str = "", **fields: object) -> list[str]:
        """Wait until the event has been logged `times` times; returns its lines."""
        deadline = time.monotonic() + TIMEOUT_S
        with self._changed:
            while len(found := self.find(event, child, **fields)) < times:
                if self._ended or not self._changed.wait(deadline - time.monotonic()):
                    log = "\n".join(self.lines)
                    pytest.fail(f"{times} x {event.id} {child} {fields} was not logged:\n{log}")
            return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def end(self) -> None:
        """End a launcher that has no work left to lose: at a second signal it kills what it runs, which would take
        seconds to stop. Two signals of one kind may be one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.process.send_signal(number)
        self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return status

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


Launch = Callable[..., LoggedProcess]
"""The type of the fixture `launch`."""

LaunchLoaded = Callable[..., LoggedProcess]
"""The type of the fixture `launch_loaded`."""


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables of these settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        "FISH_MODEL_MEMORY_GB" if k == "model_memory_gb" else f"CLONER_{k.upper()}": str(v) for k, v in values.items()
    }


def run_cloner(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cloner", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
