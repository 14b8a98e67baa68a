"""The command line: a thin skin over `Client` and `run_batch`.

Results go to standard output, everything else to standard error. Exit status: 0 all generated, 1 some failed or
something went wrong, 2 the batch or the command makes no sense, 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloner.client.assignment import Strategy
from cloner.engine.presets import Preset
from cloner.errors import ClonerError, UsageError
from cloner.events import Event
from cloner.settings import EngineName, Settings, load_settings

if TYPE_CHECKING:
    from cloner.batch import Batch
    from cloner.client.batch_handle import BatchHandle
    from cloner.client.client import Client
    from cloner.protocol.results import BatchResult

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
checkpoint_app = typer.Typer(help="Get or make the model's files.", no_args_is_help=True)
app.add_typer(checkpoint_app, name="checkpoint")

BatchFile = Annotated[Path, typer.Argument(help="Batch file: .json, .yaml, .jsonl or .csv.", show_default=False)]
BatchId = Annotated[str, typer.Argument(help="The id that `cloner submit` printed.", show_default=False)]
References = Annotated[
    Path | None,
    typer.Option(help="Folder of references, DIR/<speaker_id>/*.wav with a .lab transcript of the same stem."),
]
StrategyOption = Annotated[Strategy, typer.Option(help="How speakers are dealt to workers.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cloner {version('cloner')}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Batch voice cloning on your own GPU box."""


@app.command()
def run(
    batch: BatchFile,
    out: Annotated[Path | None, typer.Option(help="Output root; the batch file's folder if not given.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers, whatever the memory allows.")] = None,
    strategy: StrategyOption = Strategy.ROUND_ROBIN,
    references: References = None,
    engine: Annotated[EngineName | None, typer.Option(help="What speaks; CLONER_ENGINE if not given.")] = None,
) -> None:
    """Speak a batch on this box, from start to finish, and print its result as JSON. What is there is not spoken
    again."""
    from cloner.cli.run import run_batch
    from cloner.console import Screen

    read, settings = _for_this_box(batch, out or batch.parent, references, engine)
    result = run_batch(read, settings, Screen(), workers=workers, strategy=strategy)
    if isinstance(result, signal.Signals):
        raise typer.Exit(128 + result)
    _print_result(result)


@app.command()
def plan(
    batch: BatchFile,
    out: Annotated[Path | None, typer.Option(help="Look in this folder, as for `run`, and ask no fleet.")] = None,
    strategy: StrategyOption = Strategy.ROUND_ROBIN,
    references: References = None,
    engine: Annotated[EngineName | None, typer.Option(help="With --out: what would speak.")] = None,
) -> None:
    """Say what there is to speak of a batch, and how long the fleet will take. Nothing is queued or written."""
    from cloner.client.estimate import COLUMNS
    from cloner.console import print_rows

    if out is None:
        if engine:
            raise UsageError("--engine goes with --out: a fleet has an engine of its own")
        forecast = _client().plan(batch, strategy=strategy, references=references)
    else:
        from cloner.cli.run import plan_batch

        forecast = plan_batch(*_for_this_box(batch, out, references, engine))
    print_rows(COLUMNS, forecast.rows(), len(COLUMNS))
    print(forecast)


@app.command()
def submit(
    batch: BatchFile,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    strategy: StrategyOption = Strategy.ROUND_ROBIN,
    references: References = None,
) -> None:
    """Send a batch to the fleet and print its id."""
    from cloner.console import Screen
    from cloner.input.batch_file import read_batch

    root = load_settings().references_dir
    read = read_batch(batch, out_root=None, references=references, references_root=root)
    handle = _client().submit(read, strategy=strategy)
    if not wait:
        print(handle.id)
        return
    screen = Screen()
    screen.say(Event.TOTAL_TASKS.line(total=read.total))
    for line in handle.lines(read):
        screen.say(line)
    screen.say(Event.BATCH_SUBMITTED.line(batch=handle.id))
    _wait(handle)


@app.command()
def status(batch_id: BatchId) -> None:
    """Say how far a batch is."""
    progress = _client().batch(batch_id).progress()
    state = str(progress.state)
    if progress.cancelled:
        state = "cancelled" if progress.closed else "cancelling"
    print(
        f"{batch_id}: {state}, {progress.generated}/{progress.total} segments generated, {progress.failed} failed, "
        f"{progress.audio_s:.1f} s of audio"
    )


@app.command()
def wait(batch_id: BatchId) -> None:
    """Wait for a batch, wherever it was submitted, and print its result as JSON."""
    _wait(_client().batch(batch_id))


@app.command()
def result(batch_id: BatchId) -> None:
    """Print the result of a finished batch as JSON."""
    _print_result(_client().batch(batch_id).result())


@app.command()
def cancel(batch_id: BatchId) -> None:
    """Stop speaking a batch. What is finished stays."""
    _client().batch(batch_id).cancel()
    print(f"{batch_id}: cancelled; `cloner wait {batch_id}` prints what was spoken before", file=sys.stderr)


@app.command()
def retry(
    batch_id: BatchId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
) -> None:
    """Send what failed of a finished batch once more, as a batch of its own, and print its id."""
    from cloner.console import Screen

    handle = _client().batch(batch_id).retry()
    if not wait:
        print(handle.id)
        return
    Screen().say(Event.BATCH_SUBMITTED.line(batch=handle.id))
    _wait(handle)


@app.command()
def fleet() -> None:
    """List the workers that are alive."""
    from cloner.console import print_fleet

    workers = _client().fleet()
    if not workers:
        raise ClonerError("no worker is alive: start them with `launcher up`")
    print_fleet(workers)


@app.command()
def flower() -> None:
    """Watch the fleet in a browser: Flower, and a page of ours. Needs FLOWER_BASIC_AUTH=user:password."""
    from cloner.monitoring.flower.server import serve

    raise typer.Exit(serve(load_settings()))


@app.command()
def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9464,
) -> None:
    """Show what the fleet does to Prometheus, on http://HOST:PORT/metrics."""
    from cloner.monitoring.prometheus import serve

    serve(load_settings(), host, port)


@app.command()
def encode(
    audio: Annotated[Path, typer.Argument(help="A recording: any format, rate and number of channels.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file of codes to write.")],
) -> None:
    """Turn a reference recording into codes."""
    from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
    from cloner.cli.encode import encode_file

    frames = encode_file(audio, output, load_settings())
    print(f"{output}: {frames} frames, {frames * FRAME_SAMPLES / SAMPLE_RATE:.1f} s", file=sys.stderr)


@checkpoint_app.command("init")
def checkpoint_init(
    directory: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    preset: Annotated[Preset, typer.Option(help="Size of the model.")] = Preset.TINY,
) -> None:
    """Make a checkpoint with random weights, to try a fleet without the real one: it speaks noise."""
    from cloner.engine.checkpoint import init_checkpoint

    init_checkpoint(directory, preset)
    print(f"{directory}: a checkpoint of random weights, size {preset}", file=sys.stderr)


@checkpoint_app.command("pull")
def checkpoint_pull(
    name: Annotated[str, typer.Argument(help="openaudio-s1-mini, or a full name as in owner/model.")],
    directory: Annotated[
        Path | None, typer.Option("--to", help="Where to put it; checkpoints/NAME if not given.")
    ] = None,
) -> None:
    """Fetch a checkpoint from the Hugging Face hub."""
    from cloner.engine.checkpoint import pull_checkpoint

    where = pull_checkpoint(name, directory or Path("checkpoints") / name.rpartition("/")[2])
    print(where)


def _for_this_box(batch: Path, out: Path, references: Path | None, engine: EngineName | None) -> tuple[Batch, Settings]:
    """The batch, and the settings of a run of it on this box."""
    from cloner.input.batch_file import read_batch

    out_dir = _output_root(out)
    settings = load_settings()
    read = read_batch(batch, out_root=out_dir, references=references, references_root=settings.references_dir)
    overrides: dict[str, object] = {"out_dir": out_dir}
    if engine:
        overrides["engine"] = engine
    if read.checkpoint_dir:
        overrides["checkpoint_dir"] = batch.parent / read.checkpoint_dir
    return read, settings.model_copy(update=overrides)


def _output_root(folder: Path) -> Path:
    """`folder`, all links followed; it may not be there yet."""
    root = Path(realpath(folder))
    for nearest in (root, *root.parents):
        try:
            nearest.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"--out {root} cannot be used ({error.strerror}): name another folder") from error
        if nearest.is_dir():
            break
        raise UsageError(f"--out {root} is not a folder: name one, there or to be made")
    return root


def _client() -> Client:
    from cloner.client.client import Client

    return Client()


def _wait(handle: BatchHandle) -> None:
    from cloner.console import Screen

    handle.progress()  # an unknown batch is no batch to wait for
    screen = Screen()
    screen.say(Event.WAITING_FOR_WORKERS.line())
    with screen.following(plain_lines=True) as show:
        result = handle.wait(on_progress=show, say=screen.say)
    screen.say(Event.COLLECTING_RESULTS.line())
    screen.say(Event.BATCH_FINISHED.line(generated=result.generated, total=result.total))
    _print_result(result)


def _print_result(result: BatchResult) -> None:
    # UTF-8 whatever the terminal's encoding: JSON is, and a batch must not fail for want of a letter at its very end.
    sys.stdout.buffer.write(result.to_json().encode() + b"\n")
    sys.stdout.buffer.flush()
    if result.failed:
        raise typer.Exit(1)
