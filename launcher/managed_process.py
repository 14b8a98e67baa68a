"""The processes that a launcher keeps running, each with its command, its child process and its restart delay."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloner.events import Event
from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.registry import WorkerInfo
from launcher.health import Unhealthy
from launcher.layout import Layout
from launcher.process import Child

WORKER = (sys.executable, "-m", "cloner.worker")
COLLECTOR = (sys.executable, "-m", "cloner.collector")

MAX_DELAY_S = 60.0
"""Longest delay between two starts of a process that dies again and again."""

RAN_WELL_S = 10.0
"""Seconds after which a start counts as a good one: the process has worked, and more work waits for it."""


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
    """Its name as a consumer of messages, and a worker's name in the registry."""
    command: Sequence[str]
    environment: Mapping[str, str]
    is_worker: bool = True
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


def make_processes(
    settings: Settings,
    layout: Layout,
    workers: Sequence[WorkerInfo],
    environment: Mapping[str, str],
    commands: tuple[Sequence[str], Sequence[str] | None] = (WORKER, COLLECTOR),
) -> list[ManagedProcess]:
    """A process for each of the layout's workers, and one for the collector if there is a command for it.

    They get `environment` on top of this process's own.
    """
    base = {**os.environ, **environment}
    worker_command, collector_command = commands
    processes = [
        ManagedProcess(
            title=f"Worker {spec.index}",
            name=worker.name,
            command=worker_command,
            environment={**base, **spec.environment()},
            announcement=Event.LAUNCHING_WORKER.line(index=spec.index, place=spec.place),
        )
        for spec, worker in zip(layout.specs, workers, strict=True)
    ]
    if collector_command is None:
        return processes
    # The collector works on the CPU: it must not take up a card's memory.
    no_gpu = {**base, "CUDA_VISIBLE_DEVICES": ""}
    name = collector_name(settings.box)
    return [*processes, ManagedProcess("Collector", name, collector_command, no_gpu, is_worker=False)]
