"""Vitals of life: which of the running children only seem to run.

All is judged by the launcher's own clock, from when it last saw a sign change. Where Redis does not answer, or the
launcher itself was held up, patience starts anew: an outage or a clock that jumps must never kill anybody.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from cloner.names import CHILD, PARENT
from cloner.settings import Settings
from cloner.state.registry import Registry, WorkerInfo, WorkerState

HOPELESS = 5
"""Deaths in a row, before the model was ever loaded, after which a worker is not started again."""

STARTING = 4
"""How many times the patience with others a child has before its first sign of life."""

LOADING = 1 / 3
"""Which part of ``CLONER_LOAD_S`` it has without another, while it loads: a library that is read from a slow disk keeps
Python from running for long."""


@dataclass(frozen=True)
class Vitals:
    """What Redis shows of a worker or collector at one moment."""

    parent: str = ""
    """Pulse of Celery's process: its id and a count. Empty before the first."""
    child: str = ""
    """Pulse of the process that runs the tasks."""
    state: str = ""
    """Empty for a collector."""
    steps: str = ""
    waiting: int = 0
    """Messages in its own queue and in its hand."""
    loads: str = ""
    """How often a model was loaded under its name."""

    @property
    def child_pid(self) -> int:
        return pid_of(self.child)

    @property
    def is_loading(self) -> bool:
        """Whether it cannot work yet, or not again: Celery is replacing a child that has died."""
        return not self.parent or self.state == WorkerState.LOADING or not exists(self.child_pid)


@dataclass(frozen=True)
class Unhealthy:
    """Why somebody must be replaced, as in "Worker 0 has ..."."""

    reason: str
    is_hopeless: bool = False
    """The next one would fare no better."""


class HealthCheck:
    """How long each sign of one child has been as it is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since: dict[str, tuple[object, float]] = {}
        self._loaders: set[int] = set()
        self._loads = ""

    def start_anew(self) -> None:
        """Have patience as if all signs had just changed."""
        self._since.clear()

    def plan_after_crashes(self, signs: Vitals, now: float) -> Unhealthy | None:
        """What is wrong, if anything is."""
        loading = signs.is_loading
        if not loading or signs.loads != self._loads:
            self._loaders.clear()
            self._loads = signs.loads
        elif exists(signs.child_pid):
            self._loaders.add(signs.child_pid)
        ages = {
            "loading": self._age("loading", loading, now),
            PARENT: self._age(PARENT, signs.parent, now),
            CHILD: self._age(CHILD, signs.child, now),
            "work": self._age("work", (signs.state, signs.steps, signs.waiting > 0), now),
        }
        alive_s, hang_s, load_s = self._settings.alive_s, self._settings.hang_s, self._settings.load_s
        if len(self._loaders) > HOPELESS:
            return Unhealthy(f"lost {HOPELESS} model processes before one had loaded", is_hopeless=True)
        if loading and ages["loading"] > load_s:
            return Unhealthy(f"has been loading for more than {load_s:g} s")
        child_s = alive_s
        if loading:
            child_s = max(STARTING * alive_s, LOADING * load_s if exists(signs.child_pid) else 0.0)
        for age, patience in ((ages[PARENT] if signs.parent else 0.0, alive_s), (ages[CHILD], child_s)):
            if age > patience:
                return Unhealthy(f"has shown no sign of life for {patience:g} s")
        if signs.state == WorkerState.BUSY and not loading and ages["work"] > hang_s:
            return Unhealthy(f"has been busy for {hang_s:g} s without a step")
        if signs.state == WorkerState.READY and signs.waiting and not loading and ages["work"] > hang_s:
            return Unhealthy(f"has taken no work for {hang_s:g} s, and some waits for it")
        return None

    def _age(self, what: str, value: object, now: float) -> float:
        """Seconds since that was first seen to be so."""
        if what not in self._since or self._since[what][0] != value:
            self._since[what] = (value, now)
        return now - self._since[what][1]


class Watch:
    """A launcher's look at all of its children, every heartbeat."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._vigils: dict[str, HealthCheck] = {}
        self._looked = 0.0

    def begin(self, holder: str) -> None:
        """Somebody is about to start under that name. Raises `RedisError`."""
        self.end(holder)
        self._vigils[holder] = HealthCheck(self._settings)

    def end(self, holder: str) -> None:
        """He has ended: what he showed last is forgotten. Raises `RedisError`."""
        self._vigils.pop(holder, None)
        keys = self._registry.keys
        self._registry.redis.hdel(
            keys.process_heartbeats, keys.process_heartbeat(holder, PARENT), keys.process_heartbeat(holder, CHILD)
        )

    def start_anew(self) -> None:
        """Redis has not answered: nobody can be blamed for what was not seen."""
        for vigil in self._vigils.values():
            vigil.start_anew()

    def look(self, workers: list[WorkerInfo], now: float) -> dict[str, Unhealthy]:
        """What is wrong with whom, by name; `workers` are those of the box. Raises `RedisError`."""
        # Held up itself, as a laptop that slept or a launcher that was frozen, it has seen nothing for a while.
        if now - self._looked > max(3 * self._settings.heartbeat_s, self._settings.alive_s / 2):
            self.start_anew()
        self._looked = now
        queues = {worker.name: worker.queue for worker in workers}
        found = {
            holder: vigil.plan_after_crashes(signs, now)
            for (holder, vigil), signs in zip(self._vigils.items(), self._read(queues), strict=True)
        }
        return {holder: finding for holder, finding in found.items() if finding}

    def _read(self, queues: dict[str, str]) -> list[Vitals]:
        keys = self._registry.keys
        with self._registry.redis.pipeline(transaction=False) as pipe:
            for holder in self._vigils:
                pipe.hmget(
                    keys.process_heartbeats,
                    keys.process_heartbeat(holder, PARENT),
                    keys.process_heartbeat(holder, CHILD),
                )
                pipe.hmget(keys.worker(holder), "state", "steps", "loads")
                pipe.llen(queues.get(holder, ""))
                pipe.hlen(keys.unacked(holder))
            answers: list[Any] = pipe.execute()
        signs = []
        for pulses, work, queued, held in zip(*(answers[n::4] for n in range(4)), strict=True):
            parent, child, state, steps, loads = (text or "" for text in (*pulses, *work))
            signs.append(Vitals(parent, child, state, steps, queued + held, loads))
        return signs


def pid_of(pulse: str) -> int:
    """The id of the process that has shown it; 0 if none has."""
    pid = pulse.partition(" ")[0]
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
