"""A batch's result on standard output, as one line of JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from cloner.events import Event

if TYPE_CHECKING:
    from cloner.console import Screen
    from cloner.protocol.results import BatchResult


SHOWN = 3
"""Most files that a line names."""


def log_end(result: BatchResult, screen: Screen) -> None:
    """Log the last lines about a batch."""
    screen.log(Event.BATCH_FINISHED.line(generated=result.generated, total=result.total))
    if result.pruned:
        screen.log(Event.PRUNED.line(count=result.leftover_total))
    elif result.leftover:
        some = ", ".join(result.leftover[:SHOWN])
        screen.log(Event.LEFTOVER.line(count=result.leftover_total, some=some))


def print_result(result: BatchResult) -> None:
    """Print the result. Ends the command with status 1 if a segment failed."""
    # UTF-8 whatever the terminal's encoding: a batch must not fail at its end because one letter cannot be encoded.
    sys.stdout.buffer.write(result.to_json().encode() + b"\n")
    sys.stdout.buffer.flush()
    if result.failed:
        raise typer.Exit(1)
