"""Tables for people on a terminal, and for programs elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from cloner.fleet import WorkerInfo

COLUMNS = ("Worker", "Name", "State", "Device", "Slots", "Loads", "Engine", "Checkpoint", "GPU")

NARROW_COLUMNS = 6
WIDE = 110
"""Columns of a terminal that all of them need."""


def print_fleet(workers: Sequence[WorkerInfo]) -> None:
    """Workers, one a row, on standard output; tab-separated where that is no terminal."""
    rows = [
        (
            str(worker.index),
            worker.name,
            worker.state,
            worker.device,
            str(worker.slots),
            str(worker.loads),
            worker.engine,
            worker.checkpoint,
            worker.gpu or "-",
        )
        for worker in workers
    ]
    console = Console()
    if not console.is_terminal:
        for row in (COLUMNS, *rows):
            print(*row, sep="\t")
        return
    # A narrow terminal shows what tells workers apart; what is mostly the same for all needs room.
    shown = len(COLUMNS) if console.width >= WIDE else NARROW_COLUMNS
    table = Table(*COLUMNS[:shown], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row[:shown])
    console.print(table)
