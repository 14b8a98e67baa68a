"""Parts of a benchmark, each in a process of its own with a time limit, whose rows arrive as they are measured."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from ops.engine_bench.table import Row

Measure = Callable[..., Iterator[Row]]


@dataclass(frozen=True)
class Part:
    """`measure` yields rows; it runs for at most `limit_s` seconds."""

    name: str
    what: str
    measure: Measure
    limit_s: float


def run_part(part: Part, *arguments: Any) -> Iterator[Row]:
    """The rows of a part. Raises `RuntimeError` if it fails or takes too long; the rows until then have been given."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(part.measure, arguments, sender), name=part.name)
    process.start()
    sender.close()  # so that the end of the child is the end of the pipe
    deadline = time.monotonic() + part.limit_s
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            try:
                row = receiver.recv()
            except EOFError:
                process.join()
                raise RuntimeError(f"part {part.name} ended with status {process.exitcode}") from None
            match row:
                case None:
                    return
                case Row():
                    yield row
                case reason:
                    raise RuntimeError(f"part {part.name}: {reason}")
        raise RuntimeError(f"part {part.name} was stopped after {part.limit_s:.0f} s")
    finally:
        process.kill()
        process.join()


def _send_rows(measure: Measure, arguments: tuple[Any, ...], sender: Connection) -> None:
    try:
        for row in measure(*arguments):
            sender.send(row)
    except Exception as error:  # noqa: BLE001 - it goes to the parent, and into the report
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {error}")
    else:
        sender.send(None)
