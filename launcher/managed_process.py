"""A place on a box where somebody should run.

How long to wait before something that died is started again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.registry import WorkerInfo
from launcher.health import Unhealthy
from launcher.layout import Layout
from launcher.process import Child

WORKER = (sys.executable, "-m", "cloner.worker")
COLLECTOR = (sys.executable, "-m", "cloner.collector")


LONGEST_S = 60.0
"""Seconds between starts of something that dies again and again, in the end."""

RAN_WELL_S = 10.0
"""Seconds after which a start counts as a good one: there was work done, and what is left of it waits."""


class Backoff:
    """1 s, then twice as long each time, up to a minute; from the beginning after a good start."""

    def __init__(self) -> None:
        self._next_s = 1.0

    def delay_s(self, ran_s: float) -> float:
        """Seconds to wait, after it ran for `ran_s` seconds and died."""
        delay = 1.0 if ran_s >= RAN_WELL_S else self._next_s
        self._next_s = min(LONGEST_S, 2 * delay)
        return delay


@dataclass
class ManagedProcess:
    """Something that should run, and the child that does, if it does."""

    title: str
    command: Sequence[str]
    environment: Mapping[str, str]
    holder: str
    """Under which name it holds messages; a worker's name in the registry."""
    is_worker: bool = True
    announcement: str = ""
    """What to say before a start."""
    child: Child | None = None
    finding: Unhealthy | None = None
    """Why the child was killed, if it was."""
    failed_loads: int = 0
    """Deaths in a row, before the model was loaded."""
    started: float = 0.0
    due: float | None = None
    """When to start it; None while it runs or should not."""
    backoff: Backoff = field(default_factory=Backoff)


def make_processes(
    settings: Settings,
    layout: Layout,
    workers: Sequence[WorkerInfo],
    environment: Mapping[str, str],
    commands: tuple[Sequence[str], Sequence[str] | None] = (WORKER, COLLECTOR),
) -> list[ManagedProcess]:
    """A post for each of the layout's workers and one for the collector, if there is a command for it, with
    `environment` on top of this process's own."""
    base = {**os.environ, **environment}
    worker_command, collector_command = commands
    posts = [
        ManagedProcess(
            title=f"Worker {spec.index}",
            command=worker_command,
            environment={**base, **spec.environment()},
            holder=worker.name,
            announcement=f"[Main] Launching Worker {spec.index} on {spec.place}",
        )
        for spec, worker in zip(layout.specs, workers, strict=True)
    ]
    if collector_command is None:
        return posts
    # The collector is CPU work: it must not take up a card's memory.
    nowhere = {**base, "CUDA_VISIBLE_DEVICES": ""}
    name = collector_name(settings.box)
    return [*posts, ManagedProcess("Collector", collector_command, nowhere, name, is_worker=False)]
