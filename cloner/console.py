"""What the command lines show: log lines and a batch's progress on standard error, tables on standard output."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from cloner.events import Event
from cloner.logs import in_json, log_line
from cloner.state.counters import Count
from cloner.state.progress import Progress
from cloner.state.registry import ReviewerInfo, WorkerInfo
from cloner.state.throughput import RateMeter, duration

PROGRESS_INTERVAL_S = 5.0
"""Seconds between two progress lines where standard error is no terminal."""


MOST_KEPT = 1000
"""Lines that are kept for a file that they may be copied to."""

_IN_THE_BAR = re.compile(r"\[Worker \d+\] (Speaker .* progress: \d+/\d+|This speaker has \d+ texts)")
"""Lines that say no more than the bar does."""


class Screen:
    """Standard error: a terminal, or lines of text or JSON as `CLONER_LOG_FORMAT` has it. Nothing if it is `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._file: TextIO | None = None
        self._before: deque[str] = deque(maxlen=MOST_KEPT)
        """The last lines before `copy_to` is called."""

    def copy_to(self, file: TextIO | None) -> None:
        """Write every line to this file, too, also those so far and those that are not shown; with None, no more.

        A file that cannot be written is given up.
        """
        self._file = file
        for line in self._before if file else ():
            self._copy(line)
        self._before.clear()

    def _copy(self, line: str) -> None:
        try:
            print(line, file=self._file, flush=True)
        except OSError as error:
            self._file = None
            self.log(Event.COPY_NOT_KEPT.line(error=error))

    def log(self, line: str) -> None:
        """Print one line without markup or wrapping, above any progress bar; log it instead if logs are JSON.

        On a terminal, where a bar shows the progress, the lines about each speaker's progress are left out.
        """
        if self._file:
            self._copy(line)
        else:
            self._before.append(line)
        if self._quiet:
            return
        if in_json():
            log_line(line)
        elif not self.console.is_terminal:
            print(line, file=sys.stderr, flush=True)
        elif not _IN_THE_BAR.fullmatch(line):
            self.console.print(line, markup=False, emoji=False)

    @contextmanager
    def progress_display(self, *, plain_lines: bool) -> Iterator[Callable[[Progress], None]]:
        """A function that shows a batch's progress: as a bar on a terminal.

        Elsewhere it prints a line every `PROGRESS_INTERVAL_S` with `plain_lines`, and nothing without.
        """
        if self._quiet:
            yield lambda _: None
        elif self.console.is_terminal and not in_json():
            with _bar(self.console) as show:
                yield show
        elif plain_lines:
            yield self._plain_lines()
        else:
            yield lambda _: None

    def _plain_lines(self) -> Callable[[Progress], None]:
        rate, due = Rate(), 0.0

        def show(progress: Progress) -> None:
            nonlocal due
            rate.update(progress)
            if progress.closed or time.monotonic() >= due:
                due = time.monotonic() + PROGRESS_INTERVAL_S
                failed = f" ({progress.failed} failed)" if progress.failed else ""
                speed = f", {rate}" if str(rate) and not progress.reviewing else ""
                if progress.reviewing and not progress.closed:
                    speed = f", {progress.reviewing}"
                finished, total = progress.finished, progress.total
                self.log(Event.PROGRESS.line(finished=finished, total=total, details=failed + speed))

        return show


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[Progress], None]]:
    rate = Rate()
    bar = ProgressBar(
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TextColumn("[red]{task.fields[failed]}"),
        console=console,
        transient=True,
    )
    task = bar.add_task(str(rate), total=None, failed="")

    def show(progress: Progress) -> None:
        rate.update(progress)
        failed = f"{progress.failed} failed" if progress.failed else ""
        description = progress.reviewing or str(rate)
        bar.update(task, description=description, total=progress.total, completed=progress.finished, failed=failed)

    with bar:
        yield show


class Rate:
    """Throughput since the first finished segment was seen, and the time left at that rate; empty until it is known."""

    def __init__(self) -> None:
        self._meter = RateMeter()
        self._text = "waiting for the first segment"

    def update(self, progress: Progress) -> None:
        """Add a sample, taken now."""
        now = time.monotonic()
        totals = (progress.finished, progress.audio_s)
        if not len(self._meter):
            if progress.finished or progress.closed:
                self._meter.add(now, *totals)
                self._text = ""
            return
        finished_rate, audio_rate = self._meter.rates(now, *totals)
        if finished_rate:
            left = progress.total - progress.finished
            self._text = f"{audio_rate:.1f} audio-s/s" + (f", {duration(left / finished_rate)} left" if left else "")

    def __str__(self) -> str:
        return self._text


COLUMNS = ("Worker", "Name", "State", "Device", "Slots", "Loads", "Steps", "Engine", "Checkpoint", "GPU")
COUNTED_COLUMNS = ("Attempts", "Suspects")

NARROW_COLUMNS = 6
MOST_ROWS = 1000
"""Rows of a table on a terminal: to lay out 10,000 takes 2 s."""

FULL_WIDTH = 138
"""Width of a terminal, in characters, from which all columns are shown; below, the first `NARROW_COLUMNS`."""


def print_fleet(
    workers: Sequence[WorkerInfo],
    reviewers: Sequence[ReviewerInfo],
    counts: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print the workers, then the reviewers, one a row, as `print_rows` does; with `counts`, those that each worker has
    counted by its name, their attempts a segment, and suspects."""
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
            *([] if counts is None else _counted(counts.get(worker.name, {}))),
        )
        for worker in workers
    ]
    rows += [
        (
            "-",
            reviewer.name,
            reviewer.state,
            "cpu",
            "1",
            str(reviewer.loads),
            str(reviewer.steps),
            "review with words" if reviewer.words else "review",
            "-",
            "-",
            *([] if counts is None else ("-", "-")),
        )
        for reviewer in reviewers
    ]
    # The first columns tell workers apart; the others are mostly the same for all.
    print_rows(COLUMNS if counts is None else COLUMNS + COUNTED_COLUMNS, rows, NARROW_COLUMNS)


def _counted(done: Mapping[str, float]) -> tuple[str, str]:
    """Attempts a segment, and suspects."""
    segments = done.get(Count.SEGMENTS_GENERATED, 0) + done.get(Count.SEGMENTS_FAILED, 0)
    attempts = f"{1 + done.get(Count.ATTEMPTS_AGAIN, 0) / segments:.2f}" if segments else "-"
    return attempts, str(int(done.get(Count.SUSPECTS, 0) + done.get(Count.REVIEW_SUSPECTS, 0)))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], narrow: int) -> None:
    """Print rows on standard output: a table on a terminal, tab-separated elsewhere.

    Of more than `MOST_ROWS` rows, a terminal gets the first ones and the last; if it is narrower than `FULL_WIDTH`, it
    gets the first `narrow` columns.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in (columns, *rows):
            print(*row, sep="\t")
        return
    shown = len(columns) if console.width >= FULL_WIDTH else narrow
    table = Table(*columns[:shown], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    left_out = len(rows) - MOST_ROWS
    for row in rows if left_out <= 0 else (*rows[: MOST_ROWS - 1], (f"... {left_out} more",), rows[-1]):
        table.add_row(*map(Text, row[:shown]))
    console.print(table)
