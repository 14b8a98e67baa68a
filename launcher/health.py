"""Health checks: which of the running child processes are frozen, hang, or never load their model.

The timers run by the launcher's own clock, from when it last saw a vital sign change. They are reset after an outage
of Redis and after a pause of the launcher itself, so that neither causes a kill. While a process loads, processor
time that it uses is a sign of life, too, and only ``CLONER_LOAD_S`` limits it: a start may take minutes on a busy
machine, and if the box's processes were killed for that, each new start would make the others slower.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cloner.names import CHILD, PARENT
from cloner.settings import Settings
from cloner.state.registry import Registry, WorkerState
from launcher.cpu_time import cpu_times

MAX_FAILED_LOADS = 5
"""Deaths in a row, before the model was ever loaded, after which a worker is not started again."""

FIRST_HEARTBEAT = 4
"""How many times ``CLONER_ALIVE_S`` a child process has before its first heartbeat."""

FIRST_HEARTBEAT_S = 60.0
"""Seconds that it has in any case: Python starts and imports libraries, which takes no less where ``CLONER_ALIVE_S`` is
short."""

LOADING = 1 / 3
"""Part of ``CLONER_LOAD_S`` that a child process has between two heartbeats while it loads: a library that is read from
a slow disk keeps Python from running for long."""


@dataclass(frozen=True)
class Vitals:
    """What Redis holds of a process at one moment, and the processor time that it has used."""

    parent: str = ""
    """Heartbeat of Celery's process: its id and a count. Empty before the first."""
    child: str = ""
    """Heartbeat of the process that runs the tasks."""
    state: str = ""
    """Empty for a collector."""
    steps: str = ""
    waiting: int = 0
    """Messages in the queue that it reads first, and those that it has not acknowledged."""
    loads: str = ""
    """How often a model was loaded under its name."""
    parent_cpu: int = 0
    """Processor time of Celery's process, in units; 0 once the model is loaded."""
    child_cpu: int = 0
    """Processor time of what that process has started; its own, before it has started anything."""

    @property
    def child_pid(self) -> int:
        return pid_of(self.child)

    @property
    def is_loading(self) -> bool:
        """Whether it cannot work yet, or not again: Celery is replacing a child process that has died."""
        return not self.parent or self.state == WorkerState.LOADING or not exists(self.child_pid)


@dataclass(frozen=True)
class Unhealthy:
    """Why a process must be replaced, as in "Worker 0 has ..."."""

    reason: str
    is_permanent: bool = False
    """Whether its successor would fail in the same way."""


class HealthCheck:
    """The timers of one process: how long each of its vital signs has not changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since: dict[str, tuple[object, float]] = {}
        self._loaders: set[int] = set()
        """Ids of the child processes seen to load since one has loaded."""
        self._loads = ""

    def reset(self) -> None:
        """Start all timers again, as if every vital sign had just changed."""
        self._since.clear()

    def check(self, vitals: Vitals, now: float) -> Unhealthy | None:
        """What is wrong, if anything is."""
        loading = vitals.is_loading
        if not loading or vitals.loads != self._loads:
            self._loaders.clear()
            self._loads = vitals.loads
        elif exists(vitals.child_pid):
            self._loaders.add(vitals.child_pid)
        ages = {
            "loading": self._age("loading", loading, now),
            PARENT: self._age(PARENT, (vitals.parent, vitals.parent_cpu), now),
            CHILD: self._age(CHILD, (vitals.child, vitals.child_cpu), now),
            "work": self._age("work", (vitals.state, vitals.steps, vitals.waiting > 0), now),
        }
        alive_s, hang_s, load_s = self._settings.alive_s, self._settings.hang_s, self._settings.load_s
        if len(self._loaders) > MAX_FAILED_LOADS:
            return Unhealthy(f"lost {MAX_FAILED_LOADS} model processes before one had loaded", is_permanent=True)
        if loading and ages["loading"] > load_s:
            return Unhealthy(f"has been loading for more than {load_s:g} s")
        child_s = alive_s
        if loading:
            first_s = max(FIRST_HEARTBEAT * alive_s, FIRST_HEARTBEAT_S)
            child_s = max(first_s, LOADING * load_s if exists(vitals.child_pid) else 0.0)
        for age, limit_s in ((ages[PARENT] if vitals.parent else 0.0, alive_s), (ages[CHILD], child_s)):
            if age > limit_s:
                return Unhealthy(f"has shown no sign of life for {limit_s:g} s")
        if vitals.state == WorkerState.BUSY and not loading and ages["work"] > hang_s:
            return Unhealthy(f"has been busy for {hang_s:g} s without a step")
        if vitals.state == WorkerState.READY and vitals.waiting and not loading and ages["work"] > hang_s:
            return Unhealthy(f"has taken no work for {hang_s:g} s, and some waits for it")
        return None

    def _age(self, sign: str, value: object, now: float) -> float:
        """Seconds for which that vital sign has had this value."""
        if sign not in self._since or self._since[sign][0] != value:
            self._since[sign] = (value, now)
        return now - self._since[sign][1]


class HealthMonitor:
    """The health checks of all processes of a box; each process goes by the name under which it takes messages."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._checks: dict[str, HealthCheck] = {}
        self._entries: dict[str, str] = {}
        self._checked_at = 0.0

    def add(self, name: str, entry: str = "") -> None:
        """Check the process that is about to start under this name; `entry` is the key of its hash in the registry, if
        it has one. Raises `RedisError`."""
        self.remove(name)
        self._checks[name] = HealthCheck(self._settings)
        self._entries[name] = entry

    def remove(self, name: str) -> None:
        """The process has ended: forget it, and remove its heartbeats. Raises `RedisError`."""
        self._checks.pop(name, None)
        keys = self._registry.keys
        self._registry.redis.hdel(
            keys.process_heartbeats, keys.process_heartbeat(name, PARENT), keys.process_heartbeat(name, CHILD)
        )

    def reset(self) -> None:
        """Start all timers again: Redis has not answered, so changes may have been missed."""
        for check in self._checks.values():
            check.reset()

    def check(self, queues: Mapping[str, str], pids: Mapping[str, int], now: float) -> dict[str, Unhealthy]:
        """The unhealthy processes by name; `queues` are those that they read first, `pids` the ids of the processes
        that run. Raises `RedisError`."""
        # This process may have been frozen, or its machine suspended: changes were missed meanwhile.
        if now - self._checked_at > max(3 * self._settings.heartbeat_s, self._settings.alive_s / 2):
            self.reset()
        self._checked_at = now
        found = {
            name: check.check(vitals, now)
            for (name, check), vitals in zip(self._checks.items(), self._read(queues, pids), strict=True)
        }
        return {name: unhealthy for name, unhealthy in found.items() if unhealthy}

    def _read(self, queues: Mapping[str, str], pids: Mapping[str, int]) -> list[Vitals]:
        keys = self._registry.keys
        with self._registry.redis.pipeline(transaction=False) as pipe:
            for name in self._checks:
                pipe.hmget(
                    keys.process_heartbeats, keys.process_heartbeat(name, PARENT), keys.process_heartbeat(name, CHILD)
                )
                pipe.hmget(self._entries[name], "state", "steps", "loads")
                pipe.llen(queues.get(name, ""))
                pipe.hlen(keys.unacked(name))
            answers: list[Any] = pipe.execute()
        vitals = []
        for heartbeats, work, queued, unacked in zip(*(answers[n::4] for n in range(4)), strict=True):
            parent, child, state, steps, loads = (text or "" for text in (*heartbeats, *work))
            vitals.append(Vitals(parent, child, state, steps, queued + unacked, loads))
        return self._with_cpu(vitals, [pids.get(name, 0) for name in self._checks])

    @staticmethod
    def _with_cpu(vitals: list[Vitals], pids: list[int]) -> list[Vitals]:
        """The vital signs with the processor time of those that load, which costs a look at all of the machine's
        processes."""
        loading = {pid for one, pid in zip(vitals, pids, strict=True) if pid and one.is_loading}
        times = cpu_times(loading)
        with_cpu = []
        for one, pid in zip(vitals, pids, strict=True):
            own = times.get(pid, {})
            parent = own.pop(pid, 0)
            with_cpu.append(replace(one, parent_cpu=parent, child_cpu=sum(own.values()) if own else parent))
        return with_cpu


def pid_of(heartbeat: str) -> int:
    """The id of the process that has sent a heartbeat; 0 if there is none."""
    pid = heartbeat.partition(" ")[0]
    return int(pid) if pid.isdecimal() else 0


def exists(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        if pid:
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
