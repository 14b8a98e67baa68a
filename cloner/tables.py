"""Tables for people, plain where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from cloner.fleet import WorkerInfo


def print_fleet(workers: Sequence[WorkerInfo]) -> None:
    """The workers that are alive, one a row, on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # one line a worker, for programs to read
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for column in ("Worker", "Name", "Device", "GPU", "State", "Engine", "Checkpoint", "Slots", "Loads"):
        table.add_column(column, overflow="fold")
    for worker in workers:
        table.add_row(
            str(worker.index),
            worker.name,
            worker.device,
            worker.gpu or "-",
            worker.state,
            worker.engine,
            worker.checkpoint,
            str(worker.slots),
            str(worker.loads),
        )
    console.print(table)
