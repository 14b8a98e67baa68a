"""The processes of a fleet, as the system knows them, whoever is their parent by now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import psutil


class Role(StrEnum):
    """What a process of a fleet is. The child of a worker holds the model, and that of the collector does its tasks."""

    LAUNCHER = "launcher"
    WORKER = "worker"
    WORKER_CHILD = "worker's child"
    COLLECTOR = "collector"
    COLLECTOR_CHILD = "collector's child"
    OTHER = "other"


@dataclass(frozen=True)
class Member:
    """A living process of a fleet."""

    role: Role
    worker: str
    """Number of the worker that it is, or is a part of; empty for others."""
    process: psutil.Process

    def __str__(self) -> str:
        number = f" {self.worker}" if self.worker else ""
        return f"{self.role}{number} (process {self.process.pid})"


def members(fleet: str) -> Iterator[Member]:
    """The processes that were started with this fleet's name, except those that have ended."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("CLONER_FLEET") != fleet or process.status() == psutil.STATUS_ZOMBIE:
                continue
            worker = environment.get("CLONER_WORKER_INDEX", "")
            yield Member(_role(process.cmdline(), worker), worker, process)
        except psutil.Error:
            continue  # it has ended, or is not ours to look at


def _role(command: list[str], worker: str) -> Role:
    line = " ".join(command)
    if "-m launcher up" in line:
        return Role.LAUNCHER
    if "-m cloner.collector" in line:
        return Role.COLLECTOR
    if "-m cloner.worker" in line:
        return Role.WORKER
    if "spawn_main" in line:
        return Role.WORKER_CHILD if worker else Role.COLLECTOR_CHILD
    return Role.OTHER
