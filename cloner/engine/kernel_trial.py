"""Compile and compare all kernels in child processes: a compiler may abort, and a wrong kernel may make its process
unable to use the GPU.

Some children compile, into Triton's cache; others compare what has been compiled with plain torch. A child gets one
case at a time, so that its death is put down to that case's kernel; another child takes its place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing import Pipe
from queue import SimpleQueue
from tempfile import TemporaryFile

from cloner.errors import one_line
from cloner.process import PARENT_PID

MOST_COMPILERS = 16
"""Each child takes some 400 MB of memory, most of it torch's and Triton's libraries."""

CHECKERS = 2
"""Children that compare. They share one GPU."""

START_S = 120.0
"""Seconds that a child may take for its imports."""

CASE_S = 60.0
"""Seconds that compiling or comparing one case may take, usually 3 and less."""

QUIT_S = 5.0
"""Seconds that a child has to end after it has closed its connection."""

KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
"""Signals that no compiler and no kernel sends to its own process."""

MOST_PRINTED = 200
"""Characters of a dead child's last line that are shown."""


class Mode(StrEnum):
    """What a child does with a case."""

    COMPILE = "compile"
    COMPARE = "compare"


@dataclass(frozen=True)
class Job:
    """`plan` is a `kernel_child.Plan` as JSON, the same for all children of a trial; `limit_s` is for all of it."""

    plan: str
    limit_s: float
    compilers: int = field(default_factory=lambda: min(MOST_COMPILERS, len(os.sched_getaffinity(0))))


@dataclass
class Findings:
    """Families of kernels that work; those that do not, each with the reason; and why others were not tried to the
    end, if there are any."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    unfinished: str = ""


class ChildLostError(Exception):
    """A child has ended, or has not answered in time. If it `was_killed`, then not by what it was doing, but by a
    person or for lack of memory."""

    def __init__(self, reason: str, *, was_killed: bool = False) -> None:
        super().__init__(reason)
        self.was_killed = was_killed


class Child:
    """A process of `kernel_child.py`. It ends with this process, and with the thread that has started it."""

    def __init__(self, mode: Mode) -> None:
        self._output = TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cloner.engine.kernel_child", mode, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**os.environ, PARENT_PID: str(os.getpid()), "OMP_NUM_THREADS": "1"},
            )

    def ask(self, message: str, limit_s: float) -> dict[str, str]:
        """The answer to a message. Raises `ChildLostError` if there is none within `limit_s` seconds."""
        try:
            self._connection.send_bytes(message.encode())
            if self._connection.poll(max(0.0, limit_s)):
                answer: dict[str, str] = json.loads(self._connection.recv_bytes())
                return answer
        except (EOFError, OSError):
            raise self._lost() from None
        raise ChildLostError(f"it has given no answer for {limit_s:.0f} s")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()  # not by the end of its input: it may hang, or be in the middle of a case
        self._process.wait()
        self._output.close()

    def _lost(self) -> ChildLostError:
        """How it has ended, and the last that it printed."""
        try:
            status = self._process.wait(QUIT_S)
        except subprocess.TimeoutExpired:
            return ChildLostError("its process gave no answer")
        self._output.seek(0)
        printed = self._output.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(printed) if line.strip()), "")[-MOST_PRINTED:]
        how = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"status {status}"
        reason = one_line(f"its process ended with {how}" + (f": {last}" if last else ""))
        return ChildLostError(reason, was_killed=-status in KILLED)


class Trial:
    """One trial of all kernels of a plan."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._deadline = time.monotonic() + job.limit_s
        self._findings = Findings()
        self._lock = threading.Lock()
        self._families: dict[str, str] = {}
        """Of each case; the first child that has started tells them."""
        self._open: set[str] = set()
        self._queues: dict[Mode, SimpleQueue[str | None]] = {mode: SimpleQueue() for mode in Mode}

    def run(self) -> Findings:
        """Try all kernels. Raises what one of its threads raised."""
        counts = {Mode.COMPARE: CHECKERS, Mode.COMPILE: self._job.compilers}
        with ThreadPoolExecutor(sum(counts.values()), thread_name_prefix="kernels") as pool:
            running = {mode: [pool.submit(self._serve, mode) for _ in range(count)] for mode, count in counts.items()}
            try:
                for future in running[Mode.COMPILE]:
                    future.result()
            finally:
                self._end(Mode.COMPARE, CHECKERS)
            for future in running[Mode.COMPARE]:
                future.result()
        left = {self._families[name] for name in self._open} - self._findings.failed.keys()
        if self._families and not left:
            self._findings.unfinished = ""  # others have done the work of a child that could not
        elif not self._findings.unfinished:
            self._findings.unfinished = f"{self._job.limit_s:.0f} s were not enough"
        self._findings.passed = set(self._families.values()) - left - self._findings.failed.keys()
        return self._findings

    def _serve(self, mode: Mode) -> None:
        """Have a child work on what is queued, and another one if it dies."""
        child = self._started(mode)  # before there is work: its imports take seconds
        if child is None:
            return
        try:
            while name := self._queues[mode].get():
                if self._families[name] in self._findings.failed:
                    continue
                child = child or self._started(mode)
                limit_s = min(CASE_S, self._deadline - time.monotonic())
                if child is None or limit_s <= 0:
                    return
                try:
                    answer = child.ask(name, limit_s)
                except ChildLostError as lost:
                    at_fault = not lost.was_killed and limit_s == CASE_S  # and not cut short by the end of all time
                    answer = {"failed" if at_fault else "unfinished": str(lost), "ended": "yes"}
                self._note(mode, name, answer)
                if "ended" in answer:
                    child.close()
                    child = None
        finally:
            if child:
                child.close()

    def _started(self, mode: Mode) -> Child | None:
        """A child that has made its cases; None if there can be none."""
        child = Child(mode)
        try:
            families = child.ask(self._job.plan, min(START_S, self._deadline - time.monotonic()))
        except ChildLostError as lost:
            child.close()
            self._findings.unfinished = f"no process to {mode} kernels in could be started: {lost}"
            return None
        with self._lock:
            if not self._families:
                self._families, self._open = families, set(families)
                for name in families:
                    self._queues[Mode.COMPILE].put(name)
                self._end(Mode.COMPILE, self._job.compilers)
        return child

    def _end(self, mode: Mode, children: int) -> None:
        """Nothing is queued for them any more."""
        for _ in range(children):
            self._queues[mode].put(None)

    def _note(self, mode: Mode, name: str, answer: dict[str, str]) -> None:
        with self._lock:
            if failed := answer.get("failed"):
                self._findings.failed.setdefault(self._families[name], failed)
            elif unfinished := answer.get("unfinished"):
                self._findings.unfinished = unfinished
            elif mode is Mode.COMPILE:
                self._queues[Mode.COMPARE].put(name)
            else:
                self._open.discard(name)
