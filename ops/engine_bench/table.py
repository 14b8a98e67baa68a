"""Results of measurements, and their table: Markdown, aligned so that it is readable in a terminal."""

from __future__ import annotations

import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import median

COLUMNS = ("what", "ours", "against", "ratio", "least to most", "runs", "goal", "remark")


@dataclass(frozen=True)
class Row:
    """One measurement: a value for each run and, from the same run, the value that it is compared `against`."""

    what: str
    unit: str
    ours: Sequence[float]
    against: Sequence[float] = ()
    goal: str = ""
    remark: str = ""
    less_is_better: bool = False
    """For values in seconds, whose ratio is how many times shorter ours are."""

    def ratios(self) -> list[float]:
        """How many times better each run was; empty if there is nothing to compare with."""
        if not self.against:
            return []
        pairs = zip(self.ours, self.against, strict=True)
        return [theirs / ours if self.less_is_better else ours / theirs for ours, theirs in pairs]

    def cells(self) -> tuple[str, ...]:
        """The cells for `COLUMNS`. The spread is that of the ratio, if there is one."""
        ratios = self.ratios()
        spread = ratios or list(self.ours)
        return (
            self.what,
            f"{_short(median(self.ours))} {self.unit}",
            f"{_short(median(self.against))} {self.unit}" if self.against else "",
            f"{_short(median(ratios))}x" if ratios else "",
            f"{_short(min(spread))} to {_short(max(spread))}" if len(spread) > 1 else "",
            str(len(self.ours)),
            self.goal,
            self.remark,
        )


class NotHereError(Exception):
    """A measurement is not possible on this machine; the message says why."""


@dataclass
class Report:
    """The rows of a run, under a title, with notes below."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    def add(self, measure: Callable[[], list[Row]]) -> None:
        """Add the rows that `measure` returns. If it fails, add a note, so that the other measurements go on."""
        try:
            rows = measure()
        except NotHereError as reason:
            self.notes.append(f"Not measured here: {reason}.")
            return
        except Exception as error:  # noqa: BLE001 - it is reported in the table's notes
            self.complete = False
            self.notes.append(f"Failed: {type(error).__name__}: {error}")
            return
        for row in rows:  # minutes may pass until the table is complete
            print(" · ".join(cell for cell in row.cells() if cell), file=sys.stderr)
        self.rows += rows

    def add_next(self, rows: Iterator[Row]) -> bool:
        """Take one more row; False at the end. What goes wrong becomes a note, as in `add`."""
        before = len(self.rows)
        self.add(lambda: list(itertools.islice(rows, 1)))
        return len(self.rows) > before

    def markdown(self) -> str:
        """A table, with the title above and the notes below."""
        lines = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        ruled = [lines[0], tuple("-" * width for width in widths), *lines[1:]]
        table = [
            f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in ruled
        ]
        return "\n".join([self.title, "", *table, *(f"\n{note}" for note in self.notes), ""])


def machine() -> str:
    """The date, the machine and the versions."""
    return (
        f"{time.strftime('%Y-%m-%d')}, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, torch {version('torch')}"
    )


def _short(value: float) -> str:
    """Three significant digits, without exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
