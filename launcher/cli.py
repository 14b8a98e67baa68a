"""``launcher up | collect | review | plan | status | dead-letters``: the command line of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cloner.console import print_fleet
from cloner.errors import ClonerError, Damaged
from cloner.events import Event
from cloner.logs import log_event, log_line, warn_of_misspelt_variables
from cloner.output.lock import output_lock
from cloner.output.writable import require_writable
from cloner.review.requirements import check_review
from cloner.settings import EngineName, Settings, load_settings
from cloner.state.connection import HASTE_S, connect, translate_redis_errors
from cloner.state.dead_letters import DeadLetters
from cloner.state.key_types import translate_wrong_types
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, ReviewerInfo, WorkerInfo, WorkerState, expected_worker
from launcher import dead_letters
from launcher.cpu import find_cpu
from launcher.gpu_monitor import monitor_gpus
from launcher.gpus import described_gpu, find_gpus
from launcher.layout import Layout, Rule, plan_layout
from launcher.managed_process import Commands
from launcher.supervisor import Supervisor

app = typer.Typer(
    help="Starts one worker for each part of this box's GPUs, and keeps them running.",
    callback=warn_of_misspelt_variables,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(dead_letters.app, name="dead-letters")

GpuOption = Annotated[
    list[str] | None,
    typer.Option("--gpu", metavar="NAME:GB", help="Take this for GPU 0, 1, ... instead of asking the driver."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        help="Workers, whatever the memory allows: at most 64 a GPU, or 64 without one, or what it allows if more.",
    ),
]
SpeakersOption = Annotated[int | None, typer.Option(help="Speakers to come: no more workers than that.")]
EngineOption = Annotated[EngineName | None, typer.Option(help="The engine, instead of CLONER_ENGINE.")]
CollectorOption = Annotated[
    bool, typer.Option(help="Start a collector too; a fleet needs one, on this box or another.")
]
ReviewersOption = Annotated[
    int, typer.Option(min=0, max=64, metavar="N", help="Reviewers on this box: each hears takes on one core.")
]
ReadyOption = Annotated[
    bool, typer.Option("--ready", help="Exit status 1 unless each worker that `up` starts here has loaded its model.")
]
ReadyReviewersOption = Annotated[
    bool,
    typer.Option("--reviewers", help="List nothing: exit status 1 unless this box's reviewers have loaded."),
]
AliveCollectorOption = Annotated[
    bool, typer.Option("--collector", help="List nothing: exit status 1 unless a collector of the fleet is alive.")
]


@app.command()
def up(  # noqa: PLR0913, PLR0917 - one parameter an option
    gpu: GpuOption = None,
    workers: WorkersOption = None,
    speakers: SpeakersOption = None,
    engine: EngineOption = None,
    collector: CollectorOption = True,
    reviewers: ReviewersOption = 0,
) -> None:
    """Start this box's workers and keep them running."""
    settings = _settings(engine)
    settings.require_redis_url()
    if reviewers:
        check_review(settings)
    layout = _layout(settings, gpu, workers, speakers)
    for line in [*_plan_lines(layout, speakers), *layout.warnings()]:
        log_line(line)
    with _outputs(settings):
        _keep_running(settings, layout, collector=collector, reviewers=reviewers)


@app.command()
def collect() -> None:
    """Start a collector alone and keep it running, for boxes whose `up` has --no-collector."""
    settings = load_settings()
    settings.require_redis_url()
    log_event(Event.LAUNCHING_COLLECTOR)
    with _outputs(settings):
        _keep_running(settings, Layout(find_cpu(), places=(), specs=()), collector=True)


@app.command()
def review(reviewers: ReviewersOption = 1) -> None:
    """Start reviewers alone and keep them running. They need no output folder."""
    settings = load_settings()
    settings.require_redis_url()
    check_review(settings)
    log_event(Event.LAUNCHING_REVIEWERS, reviewers=reviewers)
    _keep_running(settings, Layout(find_cpu(), places=(), specs=()), collector=False, reviewers=reviewers)


@app.command()
def plan(
    gpu: GpuOption = None, workers: WorkersOption = None, speakers: SpeakersOption = None, engine: EngineOption = None
) -> None:
    """Print what `up` would start, and start nothing."""
    layout = _layout(_settings(engine), gpu, workers, speakers)
    for line in _plan_lines(layout, speakers):
        typer.echo(line)
    typer.echo("[Main] Workers:")
    for spec in layout.specs:
        threads = f"{spec.threads} thread" + ("s" if spec.threads != 1 else "")
        typer.echo(f'  Worker {spec.index}: {spec.device}, CUDA_VISIBLE_DEVICES="{spec.pin}", {threads}')
    for line in layout.warnings():
        log_line(line)


@app.command()
def status(
    ready: ReadyOption = False, collector: AliveCollectorOption = False, reviewers: ReadyReviewersOption = False
) -> None:
    """List this box's workers and reviewers; exit status 1 if none is alive."""
    settings = load_settings()
    url = settings.require_redis_url()
    redis, keys = connect(url), RedisKeys(settings.fleet)
    with translate_redis_errors(url), translate_wrong_types(redis, settings):
        registry = Registry(redis, keys, settings.alive_s)
        if collector:
            if not registry.collector_is_alive():
                raise ClonerError("No collector is alive: start one with `launcher up` or `launcher collect`")
            return
        reviewing = [reviewer for reviewer in registry.reviewers() if reviewer.box == settings.box]
        if reviewers:
            _check_reviewers(settings, reviewing)
            return
        alive = registry.workers()
        _log_dead_letters(DeadLetters(redis, keys))
    workers = [worker for worker in alive if worker.box == settings.box]
    if not workers and not reviewing:
        raise ClonerError(f'No worker of box "{settings.box}" is alive: start them with `launcher up`')
    print_fleet(workers, reviewing)
    if ready:
        _check_ready(settings, workers)


def _check_reviewers(settings: Settings, alive: list[ReviewerInfo]) -> None:
    """Raise `ClonerError` unless the box has live reviewers, and each of them has loaded its models."""
    if not alive:
        raise ClonerError(f'No reviewer of box "{settings.box}" is alive: start one with `launcher review`')
    if loading := [reviewer.name for reviewer in alive if reviewer.state is WorkerState.LOADING]:
        raise ClonerError(f"Not ready: {', '.join(loading)}")


def _log_dead_letters(letters: DeadLetters) -> None:
    """Log how many messages are in the dead-letter list, if any are. Raises `RedisError`."""
    try:
        count = len(letters)
    except Damaged as error:
        log_event(Event.FAILED, error=error.message)
    else:
        if count:
            log_event(Event.DEAD_LETTERS, count=count)


def _check_ready(settings: Settings, workers: list[WorkerInfo]) -> None:
    """Raise `ClonerError` unless each worker that `up` without options starts on this box has loaded its model.

    The layout is planned again, since `workers` lacks those whose heartbeats have stopped.
    """
    loaded = {worker.name for worker in workers if worker.state is not WorkerState.LOADING}
    expected = [expected_worker(settings, spec).name for spec in _layout(settings, None, None, None).specs]
    if missing := [name for name in expected if name not in loaded]:
        raise ClonerError(f"Not ready: {', '.join(missing)}")


@contextmanager
def _outputs(settings: Settings) -> Iterator[None]:
    """Inside it, this launcher's processes write in the output folder.

    Raises `UsageError` if it cannot be written, `OutputsTaken` if another fleet writes there.
    """
    require_writable(settings.out_dir)
    with output_lock(settings.out_dir, settings.fleet):
        yield


def _keep_running(settings: Settings, layout: Layout, *, collector: bool, reviewers: int = 0) -> None:
    """Run a supervisor until a signal stops it."""
    url = settings.require_redis_url()
    with translate_redis_errors(url):
        redis = connect(url, retries=0, answer_s=HASTE_S)
        registry = Registry(redis, RedisKeys(settings.fleet), settings.alive_s)
        environment = {"CLONER_ENGINE": settings.engine}
        commands = Commands() if collector else Commands(collector=None)
        supervisor = Supervisor(
            settings, layout, registry, environment=environment, commands=commands, reviewers=reviewers
        )
        with supervisor, monitor_gpus(settings, layout):
            supervisor.start()
            supervisor.run()


def _settings(engine: EngineName | None) -> Settings:
    settings = load_settings()
    return settings.model_copy(update={"engine": engine}) if engine else settings


def _layout(settings: Settings, gpu: list[str] | None, workers: int | None, speakers: int | None) -> Layout:
    gpus = [described_gpu(text, index) for index, text in enumerate(gpu)] if gpu else find_gpus(only=settings.gpus)
    return plan_layout(gpus, find_cpu(), Rule.of(settings), speakers=speakers, workers=workers)


def _plan_lines(layout: Layout, speakers: int | None) -> list[str]:
    return layout.lines() + ([Event.SPEAKERS.line(speakers=speakers)] if speakers is not None else [])
