"""``launcher up | plan | status``: a thin skin over layout, supervisor and registry."""

from __future__ import annotations

from typing import Annotated

import typer

from cloner.errors import ClonerError
from cloner.fleet import Registry
from cloner.logs import get_logger
from cloner.redisconn import HASTE_S, connect, reaching
from cloner.settings import EngineName, Settings, load_settings
from cloner.tables import print_fleet
from launcher.cardwatch import watching_cards
from launcher.cpu import find_cpu
from launcher.gpus import described_gpu, find_gpus
from launcher.layout import Layout, Rule, plan_layout
from launcher.supervisor import Supervisor

app = typer.Typer(
    help="Starts one worker for each part of this box's GPUs, and keeps them running.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

GpuOption = Annotated[
    list[str] | None,
    typer.Option("--gpu", metavar="NAME:GB", help="Take this for GPU 0, 1, ... instead of asking the driver."),
]
WorkersOption = Annotated[int | None, typer.Option(help="Workers on this box, instead of what the memory allows.")]
SpeakersOption = Annotated[int | None, typer.Option(help="Speakers to come: no more workers than that.")]
EngineOption = Annotated[EngineName | None, typer.Option(help="What speaks, instead of CLONER_ENGINE.")]


@app.command()
def up(
    gpu: GpuOption = None, workers: WorkersOption = None, speakers: SpeakersOption = None, engine: EngineOption = None
) -> None:
    """Start this box's workers and keep them running."""
    settings = _settings(engine)
    url = settings.require_redis_url()
    layout = _layout(settings, gpu, workers, speakers)
    log = get_logger()
    for line in [*_plan_lines(layout, speakers), *layout.warnings()]:
        log.info(line)
    with reaching(url):
        hasty = connect(url, retries=0, answer_s=HASTE_S)
        registry = Registry(hasty, settings.names, settings.alive_s)
        supervisor = Supervisor(settings, layout, registry, environment={"CLONER_ENGINE": settings.engine})
        with supervisor, watching_cards(settings, layout):
            supervisor.start()
            supervisor.run()


@app.command()
def plan(
    gpu: GpuOption = None, workers: WorkersOption = None, speakers: SpeakersOption = None, engine: EngineOption = None
) -> None:
    """Say what `up` would start, and start nothing."""
    layout = _layout(_settings(engine), gpu, workers, speakers)
    for line in _plan_lines(layout, speakers):
        typer.echo(line)
    typer.echo("[Main] Workers:")
    for spec in layout.specs:
        threads = f"{spec.threads} thread" + ("s" if spec.threads != 1 else "")
        typer.echo(f'  Worker {spec.index}: {spec.device}, CUDA_VISIBLE_DEVICES="{spec.pin}", {threads}')
    for line in layout.warnings():
        get_logger().warning(line)


@app.command()
def status() -> None:
    """List this box's workers; exit status 1 if none is alive."""
    settings = load_settings()
    url = settings.require_redis_url()
    with reaching(url):
        alive = Registry(connect(url), settings.names, settings.alive_s).workers()
    workers = [worker for worker in alive if worker.box == settings.box]
    if not workers:
        raise ClonerError(f'No worker of box "{settings.box}" is alive: start them with `launcher up`')
    print_fleet(workers)


def _settings(engine: EngineName | None) -> Settings:
    settings = load_settings()
    return settings.model_copy(update={"engine": engine}) if engine else settings


def _layout(settings: Settings, gpu: list[str] | None, workers: int | None, speakers: int | None) -> Layout:
    gpus = [described_gpu(text, index) for index, text in enumerate(gpu)] if gpu else find_gpus()
    return plan_layout(gpus, find_cpu(), Rule.of(settings), speakers=speakers, workers=workers)


def _plan_lines(layout: Layout, speakers: int | None) -> list[str]:
    return layout.lines() + ([f"[Main] Speakers: {speakers}"] if speakers is not None else [])
