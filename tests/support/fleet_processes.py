"""The processes of a fleet, found in the process table, whatever their parents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import psutil


class Role(StrEnum):
    """A process's role in its fleet. A worker's child holds the model; the collector's child runs its tasks."""

    LAUNCHER = "launcher"
    WORKER = "worker"
    WORKER_CHILD = "worker's child"
    COLLECTOR = "collector"
    COLLECTOR_CHILD = "collector's child"
    OTHER = "other"


@dataclass(frozen=True)
class FleetProcess:
    """A living process of a fleet."""

    role: Role
    worker: str
    """The number of the worker that the process belongs to; empty for others."""
    process: psutil.Process

    def __str__(self) -> str:
        number = f" {self.worker}" if self.worker else ""
        return f"{self.role}{number} (process {self.process.pid})"


def fleet_processes(fleet: str) -> Iterator[FleetProcess]:
    """The living processes that were started with this fleet's name."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("CLONER_FLEET") != fleet or process.status() == psutil.STATUS_ZOMBIE:
                continue
            worker = environment.get("CLONER_WORKER_INDEX", "")
            yield FleetProcess(_role(process.cmdline(), worker), worker, process)
        except psutil.Error:
            continue  # it has ended, or another user owns it


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
