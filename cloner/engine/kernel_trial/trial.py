"""Compile and compare all kernels in child processes: a compiler may abort, and a wrong kernel may make its process
unable to use the GPU.

Some children compile, into Triton's cache; others compare what has been compiled with plain torch. A child gets one
case at a time, so that its death is put down to that case's kernel; another child takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue

from cloner.engine.kernel_trial.processes import POLL_S, START_S, Child, ChildLostError, ForkServer, Mode
from cloner.engine.memory import GB
from cloner.events import Event
from cloner.logs import log_event
from cloner.process import usable_cores

MOST_COMPILERS = 16

LEAST_CHECKERS, MOST_CHECKERS = 2, 4
"""Children that compare, one for every four cores. They share one GPU, and each has a context on it, but a case is up
to 7,000 operations of torch, whose launches take a processor longer than they take the GPU."""

LOADING_BYTES, CHECKER_BYTES = 4 * GB, 2 * GB
"""Memory of the GPU that the worker takes meanwhile for its models and its context, and that a child takes which
compares: estimates by the sizes of S1-mini, whose greatest cases have 1.2 GB of tensors."""

CASE_S = 60.0
"""Seconds that compiling or comparing one case may take, usually 3 and less."""

LONGEST = ("attend_decode", "sample_first", "apply_unit", "attend_prompt", "convolve")
"""Kernels whose forms take longest to compile, 0.4 to 1.8 s of a processor for sm_90, where others take 0.1 to 0.9:
they come first, so that no process is left with one of them at the end."""


@dataclass(frozen=True)
class Job:
    """`plan` is a `child.Plan` as JSON, the same for all children of a trial; `limit_s` is for all of it."""

    plan: str
    limit_s: float
    compilers: int
    checkers: int

    @classmethod
    def on_card(cls, plan: str, limit_s: float, free: int) -> Job:
        """With as many children as there are processors, and as `free` bytes of the GPU's memory allow."""
        cores = usable_cores()
        by_cores = max(LEAST_CHECKERS, min(MOST_CHECKERS, cores // 4))
        by_memory = max(1, (free - LOADING_BYTES) // CHECKER_BYTES)
        return cls(plan, limit_s, min(MOST_COMPILERS, cores), min(by_cores, by_memory))


@dataclass
class Findings:
    """Families of kernels that work; those that do not, each with the reason; and why others were not tried to the
    end, if there are any."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    unfinished: str = ""


class Trial:
    """One trial of all kernels of a plan, which ends early when `stop` is set."""

    def __init__(self, job: Job, stop: threading.Event) -> None:
        self._job, self._stop = job, stop
        self._deadline = time.monotonic() + job.limit_s
        self._findings = Findings()
        self._lock = threading.Lock()
        self._families: dict[str, str] = {}
        """Of each case."""
        self._right: set[str] = set()
        """Cases whose results are torch's."""
        self._late: set[str] = set()
        """Families with a case that has taken too long: at the first time, the machine may have been too busy."""
        self._is_last = False
        """Whether nothing is tried again after this."""
        self._queues: dict[Mode, SimpleQueue[str | None]] = {}

    def run(self) -> Findings:
        """Try all kernels. Raises what one of its threads raised."""
        findings = self._findings
        reason = self._try_open(self._job.checkers)
        self._is_last = True
        may_go_on = self._left_s() > 0 and not self._stop.is_set()
        if reason and may_go_on:
            log_event(Event.KERNEL_FORK_SERVER_LOST, reason=reason)
            self._try_open(self._job.checkers)  # once more: its end was no kernel's fault
        elif findings.unfinished and self._left() and may_go_on:
            log_event(Event.KERNELS_TRIED_AGAIN, reason=findings.unfinished)
            self._try_open(1)  # the others have given their memory back, and the models may be loaded
        families, left = set(self._families.values()), self._left()
        if families and not left:
            findings.unfinished = ""  # others have done the work of a child that could not
        elif not findings.unfinished:
            findings.unfinished = f"{self._job.limit_s:.0f} s were not enough"
        findings.passed = families - left - findings.failed.keys()
        return findings

    def _left(self) -> set[str]:
        """Families of which there is no finding yet."""
        return {self._families[name] for name in self._open()} - self._findings.failed.keys()

    def _try_open(self, checkers: int) -> str:
        """Try what is open, in children of a new fork server of which so many compare; returns why that was lost, if it
        was."""
        server = ForkServer()
        try:
            with self._ended_early(server):
                self._families = server.prepare(self._job.plan, min(START_S, self._left_s()))
                self._try_all(server, checkers)
        except ChildLostError as lost:
            self._findings.unfinished = f"no process to try kernels in could be started: {lost}"
        finally:
            server.close()
        return server.lost

    @contextmanager
    def _ended_early(self, server: ForkServer) -> Iterator[None]:
        """End the fork server, inside it, when the trial is to stop: all threads wait for what it forks."""
        finished = threading.Event()

        def watch() -> None:
            while not finished.wait(POLL_S):
                if self._stop.is_set():
                    server.end()
                    return

        watching = threading.Thread(target=watch, name="kernels-stop")
        watching.start()
        try:
            yield
        finally:
            finished.set()
            watching.join()

    def _open(self) -> list[str]:
        """Cases that are not known to be right."""
        return [name for name in self._families if name not in self._right]

    def _try_all(self, server: ForkServer, checkers: int) -> None:
        self._queues = {mode: SimpleQueue() for mode in Mode}  # in those of a lost server there may be something left
        for name in sorted(self._open(), key=self._rank):
            self._queues[Mode.COMPILE].put(name)
        self._end(Mode.COMPILE, self._job.compilers)
        counts = {Mode.COMPARE: checkers, Mode.COMPILE: self._job.compilers}
        with ThreadPoolExecutor(sum(counts.values()), thread_name_prefix="kernels") as pool:
            running = {
                mode: [pool.submit(self._serve, server, mode) for _ in range(count)] for mode, count in counts.items()
            }
            try:
                for future in running[Mode.COMPILE]:
                    future.result()
            finally:
                self._end(Mode.COMPARE, checkers)
            for future in running[Mode.COMPARE]:
                future.result()

    def _rank(self, name: str) -> int:
        """A case with a lower one is compiled earlier."""
        family = self._families[name]
        return LONGEST.index(family) if family in LONGEST else len(LONGEST)

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _serve(self, server: ForkServer, mode: Mode) -> None:
        """Have a child work on what is queued, and another one if it dies."""
        child = self._started(server, mode)  # before there is work: to start CUDA takes seconds
        if child is None:
            return
        try:
            while name := self._queues[mode].get():
                if self._is_settled(self._families[name]):
                    continue
                child = child or self._started(server, mode)
                limit_s = min(CASE_S, self._left_s())
                if child is None or limit_s <= 0:
                    return
                try:
                    answer = child.ask(name, limit_s)
                except ChildLostError as lost:
                    in_full = limit_s == CASE_S  # and not cut short by the end of all time
                    at_fault = in_full and not lost.was_killed and (not lost.is_late or self._blame_late(name))
                    answer = {"failed" if at_fault else "unfinished": str(lost), "ended": "yes"}
                self._note(mode, name, answer)
                if "ended" in answer:
                    child.close()
                    child = None
        finally:
            if child:
                child.close()

    def _is_settled(self, family: str) -> bool:
        """Whether no more of its cases are tried now. One that hangs would take all the time there is."""
        return family in self._findings.failed or (family in self._late and not self._is_last)

    def _blame_late(self, name: str) -> bool:
        """Note that a case takes too long. It is its kernel's fault if one of its family has taken too long before."""
        with self._lock:
            family = self._families[name]
            again = self._is_last and family in self._late
            self._late.add(family)
            return again

    def _started(self, server: ForkServer, mode: Mode) -> Child | None:
        """A child that has made its cases; None if there can be none."""
        child = None
        try:
            child = Child(server, mode)
            child.ready(min(START_S, self._left_s()))
        except ChildLostError as lost:
            self._findings.unfinished = f"no process to {mode} kernels in could be started: {lost}"
            if child:
                child.close()
            return None
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
                self._right.add(name)
