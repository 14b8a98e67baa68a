"""Commands for the model's files: `checkpoint init` and `checkpoint pull`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cloner.engine.checkpoint.presets import Preset


def init(
    directory: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    preset: Annotated[Preset, typer.Option(help="Size of the model.")] = Preset.TINY,
) -> None:
    """Make a checkpoint with random weights, to try a fleet without the real one: it speaks noise."""
    from cloner.engine.checkpoint.folder import init_checkpoint

    init_checkpoint(directory, preset)
    print(f"{directory}: a checkpoint of random weights, size {preset}", file=sys.stderr)


def pull(
    name: Annotated[str, typer.Argument(help="openaudio-s1-mini or owner/model; @REVISION may follow.")],
    directory: Annotated[
        Path | None, typer.Option("--to", help="Where to put it; checkpoints/NAME if not given.")
    ] = None,
) -> None:
    """Fetch a checkpoint from the Hugging Face hub."""
    from cloner.engine.checkpoint.pull import pull_checkpoint
    from cloner.protocol.content_key import fingerprint

    where = pull_checkpoint(name, directory or Path("checkpoints") / name.partition("@")[0].rpartition("/")[2])
    print(f"The checkpoint's fingerprint is {fingerprint(where)}", file=sys.stderr)
    print(where)
