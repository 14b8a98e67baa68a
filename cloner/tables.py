"""Tables for people on a terminal, and for programs elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloner.fleet import WorkerInfo

COLUMNS = ("Worker", "Name", "State", "Device", "Slots", "Loads", "Steps", "Engine", "Checkpoint", "GPU")

NARROW_COLUMNS = 6
WIDE = 118
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
            str(worker.steps),
            worker.engine,
            worker.checkpoint,
            worker.gpu or "-",
        )
        for worker in workers
    ]
    # A narrow terminal shows what tells workers apart; what is mostly the same for all needs room.
    print_rows(COLUMNS, rows, NARROW_COLUMNS)


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], narrow: int) -> None:
    """Rows on standard output, tab-separated where that is no terminal; of a narrow one, the first `narrow` columns."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in (columns, *rows):
            print(*row, sep="\t")
        return
    shown = len(columns) if console.width >= WIDE else narrow
    table = Table(*columns[:shown], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*map(Text, row[:shown]))
    console.print(table)
