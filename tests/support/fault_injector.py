"""Faults of every kind in a running fleet; one seed decides which, in which process, and when."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import psutil

from cloner.settings import Settings
from tests.support.fleet_processes import FleetProcess, Role, fleet_processes
from tests.support.processes import LoggedProcess
from tests.support.records import RecordFiles
from tests.support.redis_server import RedisServer
from tests.support.waiting_client import WaitingClient

PAUSE_S = (2.0, 6.0)
"""Least and most seconds between two faults if no segment is generated in between."""


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


class NoTarget(Exception):
    """No process of the role is running at the moment."""


class FaultInjector:
    """Injects faults into a fleet that generates a batch, and prints each with its time.

    `fleet` is the launcher, `start_fleet` starts another, `waiting` returns the clients that wait for a batch now.
    """

    def __init__(
        self,
        settings: Settings,
        server: RedisServer,
        rng: random.Random,
        fleet: LoggedProcess,
        start_fleet: Callable[[], LoggedProcess],
        waiting: Callable[[], Sequence[WaitingClient]],
    ) -> None:
        self._settings = settings
        self._server = server
        self._rng = rng
        self._start_fleet = start_fleet
        self._waiting = waiting
        self._last_hit = ""
        self.fleet = fleet

    def strike(self, kinds: Sequence[str], record: RecordFiles, total: int, step: tuple[int, int]) -> int:
        """Inject these in turn, each after `step` more segments or after some seconds; returns how many were injected.

        So they come at every stage of the batch, on a slow machine too. Ends early when the batch is finished.
        """
        begin, waiting, struck = time.monotonic(), deque(kinds), 0
        now = record.lines()
        while waiting:
            now = record.wait_for(now + self._rng.randint(*step), self._rng.uniform(*PAUSE_S))
            if now >= total:
                break
            self.check_launcher()
            try:
                description = self.inject(waiting[0])
            except NoTarget:
                waiting.rotate(-1)  # its process is being restarted: later
                continue
            print(f"{time.monotonic() - begin:6.1f} s, {now:4}/{total}: {description}")
            waiting.popleft()
            struck += 1
        return struck

    def inject(self, kind: str) -> str:
        """Inject a fault of one of the `KINDS`; returns what was done. Raises `NoTarget`."""
        description: str = getattr(self, kind)()
        return description

    def check_launcher(self) -> None:
        """Check that the launcher runs: no fault makes it end by itself, not even a Redis that is away at its start."""
        assert self.fleet.process.poll() is None, self.fleet.lines[-3:]

    def kill_child(self) -> str:
        return self._signal(Role.WORKER_CHILD, signal.SIGKILL)

    def kill_parent(self) -> str:
        return self._signal(Role.WORKER, signal.SIGKILL)

    def kill_whole_worker(self) -> str:
        """Kill the parent, its child and Celery's helper at once: they are a process group."""
        target = self._running(Role.WORKER)
        os.killpg(target.process.pid, signal.SIGKILL)
        return f"kill -9 of all of {target}"

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
        """Kill the launcher and start another, as systemd or compose would."""
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
        """Kill a client that waits for a batch, and start another."""
        if not (waiting := self._waiting()):
            raise NoTarget
        self._rng.choice(waiting).kill_and_replace()
        return "kill -9 of a client that waits, and a new one"

    def _signal(self, role: Role, number: signal.Signals) -> str:
        target = self._running(role)
        target.process.send_signal(number)
        return f"{number.name} to {target}"

    def _running(self, role: Role) -> FleetProcess:
        """A running process of the role, of another worker than the last if possible. Raises `NoTarget`."""
        found = [target for target in fleet_processes(self._settings.fleet) if target.role is role and _runs(target)]
        if not found:
            raise NoTarget
        found.sort(key=lambda target: (target.worker, target.process.pid))
        others = [target for target in found if target.worker != self._last_hit]
        target = self._rng.choice(others or found)
        if target.worker:
            self._last_hit = target.worker
        return target


def _runs(target: FleetProcess) -> bool:
    try:
        return target.process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    except psutil.Error:
        return False
