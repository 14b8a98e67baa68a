"""The command `recogniser pull`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cloner.settings import load_settings


def pull(
    name: Annotated[
        str, typer.Argument(help="A size of Whisper, such as small, or owner/model; @REVISION may follow.")
    ],
) -> None:
    """Fetch a model from the Hugging Face hub into CLONER_RECOGNISER_CACHE."""
    from cloner.recogniser.models import pull_model

    folder = pull_model(name, load_settings().recogniser_cache)
    print(f"CLONER_RECOGNISER={name} uses it", file=sys.stderr)
    print(folder)
