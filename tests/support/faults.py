"""Faults of every kind, for a fleet that runs: which one, whom it hits and when comes from one seed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from cloner.output.record import batch_directory
from cloner.settings import Settings
from tests.integration.conftest import Said
from tests.support.members import Member, Role, members
from tests.support.servers import Server

PAUSE_S = (2.0, 6.0)
"""Least and most seconds between two faults, where the fleet gets nothing done meanwhile."""


KINDS = (
    "kill_child",
    "kill_parent",
    "kill_whole_worker",
    "stop_worker",
    "freeze_child",
    "freeze_parent",
    "kill_collector",
    "kill_collectors_child",
    "kill_launcher",
    "cut_redis",
    "kill_client",
)


class NobodyThere(Exception):
    """Whom the fault is meant for does not run at the moment."""


class Faults:
    """Does things to a fleet that speaks a batch, one after another, and prints what each was and when.

    `fleet` is its launcher, `start_fleet` starts another, `wait_for_batch` a client that waits for the batch.
    """

    def __init__(
        self,
        settings: Settings,
        server: Server,
        rng: random.Random,
        fleet: Said,
        start_fleet: Callable[[], Said],
        wait_for_batch: Callable[[], Said],
    ) -> None:
        self._settings = settings
        self._server = server
        self._rng = rng
        self._start_fleet = start_fleet
        self._wait_for_batch = wait_for_batch
        self._last_hit = ""
        self.fleet = fleet
        self.waiting = wait_for_batch()

    def strike(self, kinds: Sequence[str], record: RecordFiles, total: int, step: tuple[int, int]) -> int:
        """Do these in turn, each when `step` more segments are spoken or some seconds are over; returns how many.

        So they come at every stage of the batch, on a slow machine too. Ends early when all is spoken.
        """
        begin, waiting, struck = time.monotonic(), deque(kinds), 0
        now = record.lines()
        while waiting:
            now = record.wait_for(now + self._rng.randint(*step), self._rng.uniform(*PAUSE_S))
            if now >= total:
                break
            self.keep_launcher()
            try:
                said = getattr(self, waiting[0])()
            except NobodyThere:
                waiting.rotate(-1)  # whom it is meant for is starting again: later
                continue
            print(f"{time.monotonic() - begin:6.1f} s, {now:4}/{total}: {said}")
            waiting.popleft()
            struck += 1
        return struck

    def keep_launcher(self) -> None:
        """Start another one if it has ended, as systemd or compose would: a Redis that is away as it starts ends it."""
        if self.fleet.process.poll() is not None:
            self.fleet.wait()
            print(f"   the launcher has ended: {self.fleet.lines[-1:]}")
            self.fleet = self._start_fleet()

    def kill_child(self) -> str:
        return self._signal(Role.WORKER_CHILD, signal.SIGKILL)

    def kill_parent(self) -> str:
        return self._signal(Role.WORKER, signal.SIGKILL)

    def kill_whole_worker(self) -> str:
        """The parent, its child and Celery's helper, in one blow: they are a process group."""
        member = self._running(Role.WORKER)
        os.killpg(member.process.pid, signal.SIGKILL)
        return f"kill -9 of all of {member}"

    def stop_worker(self) -> str:
        return self._signal(Role.WORKER, signal.SIGTERM)

    def freeze_child(self) -> str:
        return self._signal(Role.WORKER_CHILD, signal.SIGSTOP)

    def freeze_parent(self) -> str:
        return self._signal(Role.WORKER, signal.SIGSTOP)

    def kill_collector(self) -> str:
        return self._signal(Role.COLLECTOR, signal.SIGKILL)

    def kill_collectors_child(self) -> str:
        return self._signal(Role.COLLECTOR_CHILD, signal.SIGKILL)

    def kill_launcher(self) -> str:
        """Another one is started, as systemd or compose would."""
        what = self._signal(Role.LAUNCHER, signal.SIGKILL)
        self.fleet.wait()
        self.fleet = self._start_fleet()
        return f"{what}, and a new one"

    def cut_redis(self) -> str:
        seconds = self._rng.uniform(0.5, 5)
        self._server.kill()
        threading.Event().wait(seconds)
        self._server.start()
        return f"kill -9 of Redis, away for {seconds:.1f} s"

    def kill_client(self) -> str:
        """Of the one that waits for the batch; another takes its place."""
        self.waiting.stop(signal.SIGKILL)
        self.waiting = self._wait_for_batch()
        return "kill -9 of the client that waits, and a new one"

    def _signal(self, role: Role, number: signal.Signals) -> str:
        member = self._running(role)
        member.process.send_signal(number)
        return f"{number.name} to {member}"

    def _running(self, role: Role) -> Member:
        """One of the role that runs; rather not of the worker that was hit last. Raises `NobodyThere`."""
        found = [member for member in members(self._settings.fleet) if member.role is role and _runs(member)]
        if not found:
            raise NobodyThere
        found.sort(key=lambda member: (member.worker, member.process.pid))
        others = [member for member in found if member.worker != self._last_hit]
        member = self._rng.choice(others or found)
        if member.worker:
            self._last_hit = member.worker
        return member


def _runs(member: Member) -> bool:
    try:
        return member.process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    except psutil.Error:
        return False


class RecordFiles:
    """How far a batch is, by its record: what is there although everybody is dead."""

    def __init__(self, out_dir: Path, batch_id: str) -> None:
        self._directory = batch_directory(out_dir, batch_id)

    def lines(self) -> int:
        """Lines of all workers' files."""
        return sum(path.read_bytes().count(b"\n") for path in self._directory.glob("*.jsonl"))

    def wait_for(self, lines: int, seconds: float) -> int:
        """Wait for so many lines, but no longer than that; returns how many there are."""
        deadline = time.monotonic() + seconds
        while (now := self.lines()) < lines and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return now
