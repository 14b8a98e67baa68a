"""A place on a box where somebody should run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloner.fleet import WorkerInfo
from cloner.settings import Settings
from launcher.backoff import Backoff
from launcher.layout import Layout
from launcher.process import Child
from launcher.watch import Finding

WORKER = (sys.executable, "-m", "cloner.worker")
COLLECTOR = (sys.executable, "-m", "cloner.worker.collector")


@dataclass
class Post:
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
    finding: Finding | None = None
    """Why the child was killed, if it was."""
    failed_loads: int = 0
    """Deaths in a row, before the model was loaded."""
    started: float = 0.0
    due: float | None = None
    """When to start it; None while it runs or should not."""
    backoff: Backoff = field(default_factory=Backoff)


def make_posts(
    settings: Settings,
    layout: Layout,
    workers: Sequence[WorkerInfo],
    environment: Mapping[str, str],
    commands: tuple[Sequence[str], Sequence[str]] = (WORKER, COLLECTOR),
) -> list[Post]:
    """A post for each of the layout's workers and one for the collector, with `environment` on top of this process's
    own."""
    base = {**os.environ, **environment}
    worker_command, collector_command = commands
    posts = [
        Post(
            title=f"Worker {spec.index}",
            command=worker_command,
            environment={**base, **spec.environment()},
            holder=worker.name,
            announcement=f"[Main] Launching Worker {spec.index} on {spec.place}",
        )
        for spec, worker in zip(layout.specs, workers, strict=True)
    ]
    # The collector is CPU work: it must not take up a card's memory.
    nowhere = {**base, "CUDA_VISIBLE_DEVICES": ""}
    name = settings.names.collector(settings.box)
    return [*posts, Post("Collector", collector_command, nowhere, name, is_worker=False)]
