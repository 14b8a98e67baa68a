"""Commands for a batch on this box: `run` and `plan`; without `--out`, `plan` asks the fleet, if there is one."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
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
    Reviewers,
    ReviewOption,
    StrategyOption,
    Strict,
    Trim,
    audio_options,
    language_of,
    output_root,
    with_review,
)
from cloner.cli.results import print_result
from cloner.cli.selection import Limit, Speakers, select
from cloner.client.assignment import Strategy
from cloner.errors import UsageError
from cloner.events import Event
from cloner.input.rows import ReadOptions
from cloner.logs import log_event
from cloner.settings import EngineName, Settings, load_settings

if TYPE_CHECKING:
    from cloner.batch import Batch


def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    batch: BatchFile,
    out: Annotated[Path | None, typer.Option(help="Output root; the batch file's folder if not given.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Workers, whatever the memory allows: at most 64 a GPU, or 64 without one, or what it allows if more.",
        ),
    ] = None,
    reviewers: Reviewers = 0,
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
    engine: Annotated[EngineName | None, typer.Option(help="What generates; CLONER_ENGINE if not given.")] = None,
    overwrite: Overwrite = False,
    prune: Prune = False,
    review: ReviewOption = None,
    strict: Strict = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Generate a batch on this box, from start to finish, and print its result. What is there is kept."""
    from cloner.cli.run import run_batch
    from cloner.console import Screen

    audio = audio_options(audio_format, rate, loudness, trim)
    options = ReadOptions(
        as_form, encoding, reference, reference_text, language_of(language), audio, from_command_line=True
    )
    loaded, settings = _load(batch, out or batch.parent, references, engine, options)
    loaded = select(
        with_review(replace(loaded, overwrite=overwrite, prune=prune), review), speaker, limit, strict=strict
    )
    if loaded.review not in {None, "none"} and not reviewers:
        raise UsageError(
            "the batch is to be reviewed, and a run has reviewers of its own: add --reviewers 1, or --review none"
        )
    screen = Screen(quiet=quiet)
    result = run_batch(loaded, settings, screen, workers=workers, reviewers=reviewers, strategy=strategy)
    if isinstance(result, signal.Signals):
        raise typer.Exit(128 + result)
    print_result(result, as_json=as_json, again="the same command", out=out or batch.parent)


def plan(  # noqa: PLR0913, PLR0917 - one parameter an option
    batch: BatchFile,
    out: Annotated[
        Path | None,
        typer.Option(help="Plan a `run` into this folder; the batch file's folder if CLONER_REDIS_URL is unset."),
    ] = None,
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
    engine: Annotated[EngineName | None, typer.Option(help="Of a `run`: what would speak.")] = None,
    prefix: Prefix = None,
    strict: Strict = False,
) -> None:
    """Say what is left to generate of a batch, and how long the fleet or a `run` takes. Nothing is queued."""
    from cloner.client.estimate import COLUMNS
    from cloner.console import print_rows

    audio = audio_options(audio_format, rate, loudness, trim)
    options = ReadOptions(
        as_form, encoding, reference, reference_text, language_of(language), audio, from_command_line=True
    )
    if out is None and load_settings().redis_url:
        if engine:
            raise UsageError("--engine goes with --out: a fleet has an engine of its own")
        from cloner.client.client import Client
        from cloner.input.batch_file import load_batch

        client = Client()
        loaded = load_batch(batch, client.settings, references=references, prefix=prefix, options=options)
        loaded = select(loaded, speaker, limit, strict=strict)
        estimate = client.plan(loaded, strategy=strategy, prefix=prefix)
    else:
        if prefix is not None:
            raise UsageError("--prefix is for a fleet, at CLONER_REDIS_URL: a run writes where --out says")
        from cloner.cli.run import plan_batch
        from cloner.output.writable import seems_writable

        loaded, settings = _load(batch, out or batch.parent, references, engine, options)
        loaded = select(loaded, speaker, limit, strict=strict)
        estimate = plan_batch(loaded, settings, strategy)
        if not seems_writable(settings.out_dir):
            log_event(Event.OUT_NOT_WRITABLE, folder=settings.out_dir)
    print_rows(COLUMNS, estimate.rows(), len(COLUMNS))
    for note in estimate.notes():
        print(note)
    print(estimate)


def _load(
    batch: Path, out: Path, references: Path | None, engine: EngineName | None, options: ReadOptions
) -> tuple[Batch, Settings]:
    """The batch in that file, and the settings of a run of it on this box."""
    from cloner.input.batch_file import load_batch

    out_dir = output_root(out)
    settings = load_settings()
    loaded = load_batch(batch, settings, references=references, out_root=out_dir, options=options)
    overrides: dict[str, object] = {"out_dir": out_dir}
    if engine:
        overrides["engine"] = engine
    if loaded.checkpoint_dir:
        overrides["checkpoint_dir"] = batch.parent / loaded.checkpoint_dir
    return loaded, settings.model_copy(update=overrides)
