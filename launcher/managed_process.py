"""The processes that a launcher keeps running, each with its command, its child process and its restart delay."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from cloner.events import Event
from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.registry import WorkerInfo
from launcher.health import Unhealthy
from launcher.layout import Layout
from launcher.process import Child

WORKER = (sys.executable, "-m", "cloner.worker")
COLLECTOR = (sys.executable, "-m", "cloner.collector")
REVIEWER = (sys.executable, "-m", "cloner.reviewer")

WARNINGS = "ignore:semaphore_tracker:UserWarning"
"""A filter of warnings: after the death of a process, billiard's tracker removes its semaphores, and warns of that."""

MAX_DELAY_S = 60.0
"""Longest delay between two starts of a process that dies again and again."""

RAN_WELL_S = 10.0
"""Seconds after which a start counts as a good one: the process has worked, and more work waits for it."""


class Kind(Enum):
    """What a process is."""

    WORKER = auto()
    COLLECTOR = auto()
    REVIEWER = auto()


@dataclass(frozen=True)
class Commands:
    """The command of each kind of process."""

    worker: Sequence[str] = WORKER
    collector: Sequence[str] | None = COLLECTOR
    """None if no collector is to run."""
    reviewer: Sequence[str] = REVIEWER
    """Without its number."""


class Backoff:
    """Restart delays: 1 s, then twice as long each time, up to `MAX_DELAY_S`; 1 s again after a good start."""

    def __init__(self) -> None:
        self._next_s = 1.0

    def delay_s(self, ran_s: float) -> float:
        """Seconds until the next start of a process that has died after `ran_s` seconds."""
        delay = 1.0 if ran_s >= RAN_WELL_S else self._next_s
        self._next_s = min(MAX_DELAY_S, 2 * delay)
        return delay


@dataclass
class ManagedProcess:
    """A process that should run, and the child process that does, if there is one."""

    title: str
    """As in log lines: "Worker 0"."""
    name: str
    """Its name as a consumer of messages, and a worker's or reviewer's name in the registry."""
    command: Sequence[str]
    environment: Mapping[str, str]
    kind: Kind = Kind.WORKER
    announcement: str = ""
    """Logged before each start."""
    child: Child | None = None
    unhealthy: Unhealthy | None = None
    """Why the launcher has killed the child process, if it has."""
    failed_loads: int = 0
    """Deaths in a row before the model was loaded."""
    started: float = 0.0
    due: float | None = None
    """When to start it; None while it runs, or should not."""
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def is_worker(self) -> bool:
        return self.kind is Kind.WORKER

    @property
    def loads_models(self) -> bool:
        """Whether the registry has its state: it loads models before it works."""
        return self.kind is not Kind.COLLECTOR


def make_processes(  # noqa: PLR0913, PLR0917 - what a supervisor has
    settings: Settings,
    layout: Layout,
    workers: Sequence[WorkerInfo],
    reviewers: Sequence[str],
    environment: Mapping[str, str],
    commands: Commands,
) -> list[ManagedProcess]:
    """A process for each of the layout's workers, one for the collector if there is a command for it, and one for each
    of the reviewers, which are given by name.

    They get `environment` on top of this process's own.
    """
    base = {**os.environ, **environment}
    base["PYTHONWARNINGS"] = ",".join(filter(None, [base.get("PYTHONWARNINGS"), WARNINGS]))
    processes = [
        ManagedProcess(
            title=f"Worker {spec.index}",
            name=worker.name,
            command=commands.worker,
            environment={**base, **spec.environment()},
            announcement=Event.LAUNCHING_WORKER.line(index=spec.index, place=spec.place),
        )
        for spec, worker in zip(layout.specs, workers, strict=True)
    ]
    # The others work on the CPU: they must not take up a card's memory.
    no_gpu = {**base, "CUDA_VISIBLE_DEVICES": ""}
    if commands.collector:
        name = collector_name(settings.box)
        processes.append(ManagedProcess("Collector", name, commands.collector, no_gpu, Kind.COLLECTOR))
    for number, name in enumerate(reviewers):
        command, announcement = [*commands.reviewer, str(number)], Event.LAUNCHING_REVIEWER.line(index=number)
        processes.append(ManagedProcess(f"Reviewer {number}", name, command, no_gpu, Kind.REVIEWER, announcement))
    return processes
