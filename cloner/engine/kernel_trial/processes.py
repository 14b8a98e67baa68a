"""Child processes in which kernels are compiled and compared, as the process that tries them sees them.

They are forked from one that has imported torch and Triton and made the cases, and has never touched the GPU: its
imports and the digest of Triton's files, which names compiled kernels, take 2 s of processor time, and nearly all
memory of the children is shared. What one of them does to itself, to its compiler or to its GPU context stays its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from enum import StrEnum
from multiprocessing import Pipe
from socket import AF_UNIX, SOCK_SEQPACKET, send_fds, socketpair
from tempfile import TemporaryFile
from typing import IO

from cloner.errors import one_line
from cloner.process import PARENT_PID

START_S = 120.0
"""Seconds that a process may take for its imports, and the fork server for an answer, which on a machine that is not
overloaded takes it milliseconds."""

QUIT_S = 5.0
"""Seconds that a process has to end after it has closed its connection."""

POLL_S = 0.02

KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
"""Signals that no compiler and no kernel sends to its own process."""

MOST_PRINTED = 200
"""Characters of a dead process's last line that are shown."""

MOST_BYTES = 2**17
"""Of a message between this process and the fork server."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment variables of the fork server. A child has only the thread that has forked it: the first of its loops that
waited for threads of the server's pool would wait for ever."""


class Mode(StrEnum):
    """What a child does with a case."""

    COMPILE = "compile"
    COMPARE = "compare"


class ChildLostError(Exception):
    """A process has ended, or has not answered in time (`is_late`). If it `was_killed`, then not by what it was doing,
    but by a person or for lack of memory."""

    def __init__(self, reason: str, *, was_killed: bool = False, is_late: bool = False) -> None:
        super().__init__(reason)
        self.was_killed, self.is_late = was_killed, is_late


class ForkServer:
    """The process that children are forked from (`child.py`). It ends with this process, and with the thread
    that has started it; its children end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._output = TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # Unbuffered: no child prints what the server has printed, and none takes its last words with it.
                [sys.executable, "-u", "-m", "cloner.engine.kernel_trial.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**os.environ, **ONE_THREAD, PARENT_PID: str(os.getpid())},
            )
        self.lost = ""
        """Why it gives no answers any more; empty as long as it does."""

    def prepare(self, plan: str, limit_s: float) -> dict[str, str]:
        """Have it make the cases of a `child.Plan`, given as JSON; returns the family of each case. Raises
        `ChildLostError`."""
        families: dict[str, str] = json.loads(self._ask(plan, limit_s))
        return families

    def fork(self, mode: Mode, connection: int, output: int) -> int:
        """The process id of a new child, which gets two of this process's file descriptors. Raises
        `ChildLostError`."""
        return int(self._ask(f"fork {mode}", START_S, [connection, output]))

    def status(self, child: int, limit_s: float) -> int | None:
        """A child's exit status, negative for a signal; None if it has not ended within so many seconds. Raises
        `ChildLostError`."""
        deadline = time.monotonic() + limit_s
        while not (status := self._ask(f"status {child}", START_S)):
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL_S)
        return int(status)

    def kill(self, child: int) -> None:
        """End a child, and wait until it has given its memory back. Raises `ChildLostError`."""
        self._ask(f"kill {child}", START_S)

    def end(self) -> None:
        """End it, with all that it has forked: whoever waits for one of its answers learns that it is lost."""
        self._process.kill()

    def close(self) -> None:
        """End it, with all that it has forked, and free what belongs to it. No thread may wait for an answer."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._output.close()

    def _ask(self, message: str, limit_s: float, descriptors: list[int] | None = None) -> str:
        with self._lock:
            try:
                self._socket.settimeout(max(POLL_S, limit_s))
                send_fds(self._socket, [message.encode()], descriptors or [])
                answer = self._socket.recv(MOST_BYTES)
            except TimeoutError:
                self._process.kill()  # the next answer would be to this message
                raise self._lost(ChildLostError(f"it has given no answer for {limit_s:.0f} s")) from None
            except OSError:
                answer = b""
            if not answer:
                raise self._lost(self._ended())
        return answer.decode().removeprefix("=")

    def _ended(self) -> ChildLostError:
        """How it has ended."""
        try:
            return _lost(self._process.wait(QUIT_S), self._output)
        except subprocess.TimeoutExpired:
            return ChildLostError("its process gave no answer")

    def _lost(self, error: ChildLostError) -> ChildLostError:
        """The error, of which the first one says why the server is lost."""
        self.lost = self.lost or str(error)
        return error


class Child:
    """A process that does one thing to cases, one after another."""

    def __init__(self, server: ForkServer, mode: Mode) -> None:
        """Raises `ChildLostError`."""
        self._server = server
        self._output = TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._connection, theirs = Pipe()
        with theirs:
            self._pid = server.fork(mode, theirs.fileno(), self._output.fileno())
        self._has_ended = False

    def ready(self, limit_s: float) -> None:
        """Wait until it has made its cases. Raises `ChildLostError`."""
        self._answer(limit_s)

    def ask(self, case: str, limit_s: float) -> dict[str, str]:
        """The finding on a case. Raises `ChildLostError` if there is none within `limit_s` seconds."""
        try:
            self._connection.send_bytes(case.encode())
        except OSError:
            raise self._lost() from None
        return self._answer(limit_s)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        if not self._has_ended:
            try:
                self._server.kill(self._pid)  # not by the end of its input: it may hang, or be in the middle of a case
            except ChildLostError:
                self._has_ended = True  # with the fork server
        self._output.close()

    def _answer(self, limit_s: float) -> dict[str, str]:
        try:
            if self._connection.poll(max(0.0, limit_s)):
                answer: dict[str, str] = json.loads(self._connection.recv_bytes())
                return answer
        except (EOFError, OSError):
            raise self._lost() from None
        raise ChildLostError(f"it has given no answer for {limit_s:.0f} s", is_late=True)

    def _lost(self) -> ChildLostError:
        """How it has ended, and the last that it printed."""
        try:
            status = self._server.status(self._pid, QUIT_S)
        except ChildLostError as lost:  # the fork server's end is no case's fault
            return ChildLostError(str(lost), was_killed=True)
        if status is None:
            return ChildLostError("its process gave no answer")
        self._has_ended = True
        return _lost(status, self._output)


def _lost(status: int, output: IO[bytes]) -> ChildLostError:
    output.seek(0)
    printed = output.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(printed) if line.strip()), "")[-MOST_PRINTED:]
    how = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"status {status}"
    reason = one_line(f"its process ended with {how}" + (f": {last}" if last else ""))
    return ChildLostError(reason, was_killed=-status in KILLED)
