"""The processes of a fleet, found in the process table, whatever their parents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

_PY_SPY = Path(sys.executable).with_name("py-spy")
"""Prints the stacks of a running Python process from outside it."""


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


def stacks(processes: Iterable[FleetProcess]) -> str:
    """What each process is doing: its state, its pending signals, and the stacks of its threads."""
    described = []
    for found in processes:
        process = found.process
        try:
            status = (Path("/proc") / str(process.pid) / "status").read_text()
            lines = [line for line in status.splitlines() if line.startswith(("State:", "PPid:", "Sig", "Shd"))]
        except OSError as error:
            lines = [str(error)]
        dump = subprocess.run([_PY_SPY, "dump", "--pid", str(process.pid)], capture_output=True, text=True, check=False)
        described.append("\n".join([str(found), *lines, dump.stdout, dump.stderr]))
    return "\n".join(described)


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
