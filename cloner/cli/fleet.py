"""Commands for a fleet that runs elsewhere: its batches and its workers."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cloner.cli.options import (
    AsForm,
    AsJson,
    BatchFile,
    Encoding,
    Format,
    Language,
    Loudness,
    Overwrite,
    Prefix,
    Prune,
    Quiet,
    Rate,
    Reference,
    References,
    ReferenceText,
    ReviewOption,
    StrategyOption,
    Strict,
    Trim,
    audio_options,
    language_of,
    with_review,
)
from cloner.cli.results import log_end, print_result
from cloner.cli.selection import Limit, Speakers, select
from cloner.client.assignment import Strategy
from cloner.errors import ClonerError
from cloner.events import Event
from cloner.input.rows import ReadOptions
from cloner.settings import load_settings

if TYPE_CHECKING:
    from cloner.client.batch_handle import BatchHandle
    from cloner.client.client import Client
    from cloner.console import Screen

BatchId = Annotated[
    str, typer.Argument(help="The id that `cloner submit` printed, or `cloner list` shows.", show_default=False)
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")]


def submit(  # noqa: PLR0913, PLR0917 - one parameter an option
    batch: BatchFile,
    wait: Wait = False,
    strategy: StrategyOption = Strategy.ROUND_ROBIN,
    references: References = None,
    reference: Reference = None,
    reference_text: ReferenceText = None,
    as_form: AsForm = None,
    encoding: Encoding = None,
    language: Language = None,
    audio_format: Format = None,
    rate: Rate = None,
    loudness: Loudness = None,
    trim: Trim = False,
    speaker: Speakers = None,
    limit: Limit = None,
    prefix: Prefix = None,
    overwrite: Overwrite = False,
    prune: Prune = False,
    review: ReviewOption = None,
    strict: Strict = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Send a batch to the fleet and print its id."""
    from cloner.console import Screen
    from cloner.input.batch_file import load_batch

    audio = audio_options(audio_format, rate, loudness, trim)
    options = ReadOptions(
        as_form, encoding, reference, reference_text, language_of(language), audio, from_command_line=True
    )
    loaded = load_batch(batch, load_settings(), references=references, prefix=prefix, options=options)
    loaded = select(
        with_review(replace(loaded, overwrite=overwrite, prune=prune), review), speaker, limit, strict=strict
    )
    handle = connect_client().submit(loaded, strategy=strategy, prefix=prefix)
    if not wait:
        print(handle.id)
        return
    screen = Screen(quiet=quiet)
    screen.log(Event.TOTAL_TASKS.line(total=loaded.total))
    for line in handle.assignment_lines(loaded):
        screen.log(line)
    screen.log(Event.BATCH_SUBMITTED.line(batch=handle.id))
    wait_and_print(handle, screen, as_json=as_json)


def status(batch_id: BatchId) -> None:
    """Say how far a batch is."""
    progress = connect_client().batch(batch_id).progress()
    reviewing = f", {progress.reviewing}" if progress.reviewing and not progress.closed else ""
    print(
        f"{batch_id}: {progress.status}, {progress.generated}/{progress.total} segments generated, "
        f"{progress.failed} failed, {progress.audio_s:.1f} s of audio{reviewing}"
    )


def wait(batch_id: BatchId, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Wait for a batch, wherever it was submitted, and print its result."""
    from cloner.console import Screen

    wait_and_print(connect_client().batch(batch_id), Screen(quiet=quiet), as_json=as_json)


def result(batch_id: BatchId, as_json: AsJson = False) -> None:
    """Print the result of a finished batch."""
    print_result(connect_client().batch(batch_id).result(), as_json=as_json, again=f"`cloner retry {batch_id}`")


def cancel(batch_id: BatchId) -> None:
    """Stop speaking a batch. What is finished stays."""
    connect_client().batch(batch_id).cancel()
    print(f"{batch_id}: cancelled; `cloner wait {batch_id}` prints what was spoken before", file=sys.stderr)


def fleet() -> None:
    """List the workers and reviewers that are alive."""
    from cloner.console import print_fleet

    client = connect_client()
    workers = client.fleet()
    if not workers:
        raise ClonerError("no worker is alive: start them with `launcher up`")
    print_fleet(workers, client.reviewers(), client.counts())
    for worker in workers:
        if worker.warning:
            print(f"{worker.name}: {worker.warning}", file=sys.stderr)


def connect_client(otherwise: str = "") -> Client:
    """The fleet's client. Raises `BadSetting` where no fleet is named; `otherwise` says what would do without one."""
    from cloner.client.client import Client

    load_settings().require_redis_url(otherwise)
    return Client()


def wait_and_print(handle: BatchHandle, screen: Screen, *, as_json: bool) -> None:
    """Show the batch's progress until it is closed, then print its result."""
    handle.progress()  # raises `UnknownBatch` before the command reports that it waits
    screen.log(Event.WAITING_FOR_WORKERS.line())
    try:
        with screen.progress_display(plain_lines=True) as show:
            result = handle.wait(on_progress=show, on_warning=screen.log)
    except SystemExit:  # Ctrl-C, or another signal
        screen.log(Event.WAIT_ENDED.line(batch=handle.id))
        raise
    screen.log(Event.COLLECTING_RESULTS.line())
    log_end(result, screen)
    print_result(result, as_json=as_json, again=f"`cloner retry {handle.id}`")
