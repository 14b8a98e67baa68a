"""Commands that generate a part of a closed batch once more: `retry` and `redo`; with `--out` on this box."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloner.cli.fleet import BatchId, Wait, connect_client, wait_and_print
from cloner.cli.options import AsJson, Quiet, Reviewers, output_root
from cloner.cli.results import print_result
from cloner.errors import UnknownBatch, UsageError
from cloner.events import Event
from cloner.validation import shown

if TYPE_CHECKING:
    from cloner.batch import Redo
    from cloner.client.batch_handle import BatchHandle
    from cloner.protocol.queries import PartRequest

Out = Annotated[
    Path | None,
    typer.Option(help="Output root of a batch that was run on this box: run there, ask no fleet, print the result."),
]


def retry(  # noqa: PLR0913, PLR0917 - one parameter an option
    batch_id: BatchId,
    wait: Wait = False,
    out: Out = None,
    reviewers: Reviewers = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Send what failed of a finished batch once more, as a batch of its own, and print its id."""
    from cloner.protocol.queries import PartRequest

    if out is not None:
        request = PartRequest(batch_id=checked_id(batch_id), failed=True)
        _run(request, out, None, reviewers, as_json=as_json, quiet=quiet)
    else:
        _check_fleet(reviewers)
        _send(lambda: connect_client().batch(batch_id).retry(), wait=wait, as_json=as_json, quiet=quiet)


def redo(  # noqa: PLR0913, PLR0917 - one parameter an option
    batch_id: BatchId,
    segment: Annotated[
        list[int] | None,
        typer.Option(min=0, max=2**63 - 1, help="This segment; may be given several times.", metavar="N"),
    ] = None,
    marked: Annotated[
        Path | None, typer.Option(help='The segments in this file: {"batch": ID, "bad": [N or output, ...]}.')
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="What the new seeds follow from; else each time others.", metavar="N"),
    ] = None,
    wait: Wait = False,
    out: Out = None,
    reviewers: Reviewers = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Speak single lines of a finished batch again, with another seed, and print the id of that batch.

    Their files are replaced, and kept under OUT/.cloner.
    """
    from cloner.batch import Redo
    from cloner.input.marked_file import read_marked
    from cloner.protocol.queries import PartRequest

    if not segment and marked is None:
        raise UsageError("say what to speak again: give --segment N, or --marked FILE")
    segments, outputs = list(segment or ()), list[str]()
    if marked is not None:
        file = read_marked(marked, batch_id)
        segments, outputs = segments + file.segments, file.outputs
    if out is not None:
        request = PartRequest(batch_id=checked_id(batch_id), segments=segments, outputs=outputs)
        _run(request, out, Redo(seed=seed), reviewers, as_json=as_json, quiet=quiet)
    else:
        _check_fleet(reviewers)
        _send(
            lambda: connect_client().batch(batch_id).redo(segments, outputs, seed=seed),
            wait=wait,
            as_json=as_json,
            quiet=quiet,
        )


def checked_id(batch_id: str) -> str:
    """Return `batch_id`. Raises `UnknownBatch` if no batch can have it."""
    from cloner.protocol.fields import is_batch_id

    if not is_batch_id(batch_id):
        raise UnknownBatch(f"{shown(batch_id)} is no batch's id: `cloner list --out` lists them")
    return batch_id


def _check_fleet(reviewers: int) -> None:
    """Raise `UsageError` if reviewers are wanted for a batch of the fleet."""
    if reviewers:
        raise UsageError("--reviewers goes with --out: a fleet has reviewers of its own, `launcher up --reviewers N`")


def _send(send: Callable[[], BatchHandle], *, wait: bool, as_json: bool, quiet: bool) -> None:
    from cloner.console import Screen

    handle = send()
    if not wait:
        print(handle.id)
        return
    screen = Screen(quiet=quiet)
    screen.log(Event.BATCH_SUBMITTED.line(batch=handle.id))
    wait_and_print(handle, screen, as_json=as_json)


def _run(  # noqa: PLR0913 - what an option says each
    request: PartRequest, out: Path, redo: Redo | None, reviewers: int, *, as_json: bool, quiet: bool
) -> None:
    from cloner.cli.run import run_part
    from cloner.console import Screen
    from cloner.output.kept_batch import read_part
    from cloner.settings import load_settings

    root = output_root(out)
    part = read_part(root, request)
    if redo:
        part = part.model_copy(update={"redo": redo})
    settings = load_settings().model_copy(update={"out_dir": root})
    result = run_part(part, settings, Screen(quiet=quiet), reviewers)
    if isinstance(result, signal.Signals):
        raise typer.Exit(128 + result)
    print_result(result, as_json=as_json, again=f"cloner retry {result.batch_id} --out {out}", out=out)
