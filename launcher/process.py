"""One child process: start it, read its lines, stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TypeAlias, cast

from cloner.process import LEASE, PARENT_PID

LONGEST_LINE = 8192
"""Bytes of a line that are passed on."""

LAST_LINES_S = 2.0
"""Seconds that the last lines of a child process may take to arrive after its end."""


@dataclass(frozen=True)
class Line:
    """A child process has written a line, on standard output or standard error."""

    child: Child
    text: str


@dataclass(frozen=True)
class Ended:
    """A child process has ended; all its lines came before. `status` is negative for a signal, as in `subprocess`."""

    child: Child
    status: int

    @property
    def how(self) -> str:
        """As in "Worker 0 was killed by SIGKILL"."""
        if self.status >= 0:
            return f"ended with exit status {self.status}"
        number = -self.status
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"was killed by {name}" + (" (out of memory?)" if number == signal.SIGKILL else "")


ProcessEvent: TypeAlias = "Line | Ended | signal.Signals"
"""What a supervisor waits for."""


class Child:
    """A running process, in a session of its own so that Ctrl-C does not reach it.

    Its lines, and at last its end, are put on `events`. Make it in the main thread: if its program calls
    `die_with_parent`, the kernel kills it when the thread that started it ends. Raises `OSError` if it cannot be
    started.
    """

    def __init__(
        self, title: str, command: Sequence[str], environment: Mapping[str, str], events: SimpleQueue[ProcessEvent]
    ) -> None:
        self.title = title
        self.last_line = ""
        self._events = events
        self._process = subprocess.Popen(
            command,
            env={
                **environment,
                PARENT_PID: str(os.getpid()),
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(cast(IO[bytes], self._process.stdout),), daemon=True)
        reader.start()
        threading.Thread(target=self._wait, args=(reader,), daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id, and id of its process group."""
        return self._process.pid

    def stop(self) -> None:
        """Send it SIGTERM; its own child processes get none."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to it and all that it started."""
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(self.pid, signal.SIGKILL)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while raw := pipe.readline(LONGEST_LINE):
                text = _text(raw)
                if not raw.endswith(b"\n"):
                    text += _skip_rest(pipe)
                self.last_line = text or self.last_line
                self._events.put(Line(self, text))

    def _wait(self, reader: threading.Thread) -> None:
        status = self._process.wait()
        # Processes that it started must not keep the card's memory, nor the pipe.
        self.kill()
        reader.join(LAST_LINES_S)
        self._events.put(Ended(self, status))


def kill_started_under(leases: Collection[str]) -> int:
    """Kill this machine's processes that launchers with these leases, or their child processes, have started.

    Returns how many there were; 0 where there is no ``/proc`` (only Linux has it).
    """
    wanted = {f"{LEASE}={lease}".encode() for lease in leases}
    found = 0
    for environment in Path("/proc").glob("[0-9]*/environ") if wanted else ():
        # Another user's cannot be read, and a dead process has none. If it dies meanwhile, its id may become another's,
        # but the descriptor does not.
        with suppress(OSError):
            process = os.pidfd_open(int(environment.parent.name))
            try:
                if wanted.intersection(environment.read_bytes().split(b"\0")):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    found += 1
            finally:
                os.close(process)
    return found


def _text(raw: bytes) -> str:
    # A progress bar rewrites its line; a terminal shows what follows the last "\r".
    return raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2].rstrip()


def _skip_rest(pipe: IO[bytes]) -> str:
    """Read on to the end of a long line; returns the text that replaces the rest."""
    cut = False
    while rest := pipe.readline(LONGEST_LINE):
        cut = cut or bool(rest.strip())
        if rest.endswith(b"\n"):
            break
    return " ... (cut)" if cut else ""
