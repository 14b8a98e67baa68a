"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloner.client.assignment import Strategy

BatchFile = Annotated[Path, typer.Argument(help="Batch file: .json, .yaml, .jsonl or .csv.", show_default=False)]
References = Annotated[
    Path | None,
    typer.Option(help="Folder of references, DIR/<speaker_id>/*.wav with a .lab transcript of the same stem."),
]
Prefix = Annotated[
    str | None,
    typer.Option(help="Folder under the fleet's output root; the batch file's name without its ending if not given."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that no version of this batch has written.")
]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="Remove files of earlier versions of this batch, once all of it is generated."),
]
StrategyOption = Annotated[Strategy, typer.Option(help="How speakers are dealt to workers.")]
