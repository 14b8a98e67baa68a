"""Fetch a checkpoint folder from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from cloner.engine.checkpoint.files import FILES
from cloner.engine.checkpoint.folder import check_empty, missing_files
from cloner.hub.model_hub import ModelKind, fetch, was_interrupted

CHECKPOINT = ModelKind(
    name="checkpoint",
    origin="a checkpoint of fish-speech",
    published={"openaudio-s1-mini": "fishaudio/openaudio-s1-mini"},
    files=FILES,
    missing=missing_files,
)


def pull_checkpoint(name: str, directory: Path) -> Path:
    """Fetch the checkpoint `name` into `directory`, and return `directory`.

    `name` is a short name or a full "owner/model"; "@" and a branch, tag or commit may follow. An interrupted pull is
    resumed. Raises `UsageError`, and what `fetch` raises.
    """
    if not was_interrupted(directory):
        check_empty(directory)
    fetch(CHECKPOINT, name, directory, directory)
    return directory
