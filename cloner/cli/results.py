"""A batch's result on standard output, as one line of JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cloner.protocol.results import BatchResult


def print_result(result: BatchResult) -> None:
    """Print the result. Ends the command with status 1 if a segment failed."""
    # UTF-8 whatever the terminal's encoding: a batch must not fail at its end because one letter cannot be encoded.
    sys.stdout.buffer.write(result.to_json().encode() + b"\n")
    sys.stdout.buffer.flush()
    if result.failed:
        raise typer.Exit(1)
