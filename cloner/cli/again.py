"""Commands that generate a part of a closed batch once more: `retry` and `redo`; with `--out` on this box."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloner.cli.fleet import BatchId, Wait, connect_client, wait_and_print
from cloner.cli.options import OR_OUT, AsJson, Quiet, Reviewers, output_root, segment_of
from cloner.cli.results import print_result
from cloner.errors import UnknownBatch, UsageError
from cloner.events import Event
from cloner.validation import shown

if TYPE_CHECKING:
    from cloner.batch import Redo
    from cloner.client.batch_handle import BatchHandle
    from cloner.console import Screen
    from cloner.protocol.messages import Manifest
    from cloner.protocol.queries import PartRequest

MOST_NAMED = 20
"""Most segments that are named before they are spoken again."""

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
        _send(lambda _: connect_client(OR_OUT).batch(batch_id).retry(), wait=wait, as_json=as_json, quiet=quiet)


def redo(  # noqa: PLR0913, PLR0917 - one parameter an option
    batch_id: BatchId,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="This segment, by its number or its file; may be given several times.", metavar="N|FILE"),
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
    named = [segment_of(text) for text in segment or ()]
    segments = [name for name in named if isinstance(name, int)]
    outputs = [name for name in named if isinstance(name, str)]
    if marked is not None:
        file = read_marked(marked, batch_id)
        segments, outputs = segments + file.segments, outputs + file.outputs
    if out is not None:
        request = PartRequest(batch_id=checked_id(batch_id), segments=segments, outputs=outputs)
        _run(request, out, Redo(seed=seed), reviewers, as_json=as_json, quiet=quiet)
    else:
        _check_fleet(reviewers)
        _send(
            lambda check: connect_client(OR_OUT).batch(batch_id).redo(segments, outputs, seed=seed, check=check),
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


def _send(send: Callable[[Callable[[Manifest], None]], BatchHandle], *, wait: bool, as_json: bool, quiet: bool) -> None:
    """`send` may call the function that it gets with what it is about to send."""
    from cloner.console import Screen

    screen = Screen(quiet=quiet)
    handle = send(lambda part: _log_segments(part, screen))
    if not wait:
        print(handle.id)
        return
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
    screen = Screen(quiet=quiet)
    if redo:
        _log_segments(part, screen)
    result = run_part(part, settings, screen, reviewers)
    if isinstance(result, signal.Signals):
        raise typer.Exit(128 + result)
    print_result(result, as_json=as_json, again=f"`cloner retry {result.batch_id} --out {out}`", out=out)


def _log_segments(part: Manifest, screen: Screen) -> None:
    """Log which segments are about to be spoken again."""
    segments = [(speaker.id, row) for speaker in part.speakers for row in speaker.segments]
    for speaker, row in segments[:MOST_NAMED]:
        line = Event.SEGMENT_NAMED.line(segment=row.segment, output=row.output, speaker=speaker, text=shown(row.text))
        screen.log(line)
    if len(segments) > MOST_NAMED:
        screen.log(Event.MORE_SEGMENTS_NAMED.line(count=len(segments) - MOST_NAMED))
