"""Checkpoint folders in fish-speech's layout: check one, make one of random weights.

Importing this takes no torch, so that a launcher can check a checkpoint before it starts a worker.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from cloner.engine.checkpoint.files import CODEC_SIZES, CONFIG, FILES, RANDOM_WEIGHTS, SPECIAL_TOKENS, TOKENIZER
from cloner.engine.checkpoint.presets import CONFIGS, SMALL_CODEC, Preset, vocabulary
from cloner.engine.packages import worker_packages
from cloner.errors import ClonerError, LoadFailed, UsageError, first_line

PARTIAL = ".partial"
"""Subfolder where `init_checkpoint` writes before it moves the files up."""


def check_checkpoint(directory: Path) -> None:
    """Raise `LoadFailed` unless all files of a checkpoint are in `directory`. Their contents are not checked."""
    missing = missing_files(directory)
    if not missing:
        return
    what = f"has no readable {', '.join(missing)}" if directory.is_dir() else "does not exist"
    raise LoadFailed(
        f"the checkpoint folder {directory.absolute()} {what}: fetch a checkpoint with `cloner checkpoint pull`, make"
        " one of random weights with `cloner checkpoint init`, or set CLONER_CHECKPOINT_DIR to yours"
    )


def init_checkpoint(directory: Path, preset: Preset, seed: int = 0) -> None:
    """Make a checkpoint of random weights in `directory`, which must be empty or absent.

    It loads and runs like a published one, at the speed of its size, and generates noise. The same preset and seed
    give the same weights. The files that a killed init leaves are not accepted as a checkpoint, and the next init
    removes them. Raises `UsageError`, `MissingPackage` or another `ClonerError`.
    """
    check_empty(directory)
    with worker_packages():
        from cloner.engine.checkpoint import fish, random_weights  # they import torch
    partial = directory / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _describe(partial, preset, fish.special_tokens())
        random_weights.write(partial, seed)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == CONFIG):
            path.rename(directory / path.name)  # the configuration last: the folder is no checkpoint without it
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        raise ClonerError(f"no checkpoint could be written to {directory.absolute()}: {first_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def has_random_weights(directory: Path) -> bool:
    """Whether the checkpoint is one of `init_checkpoint`, by the mark that this leaves."""
    return (directory / RANDOM_WEIGHTS).exists()


def missing_files(directory: Path) -> list[str]:
    """The names of the checkpoint's files that `directory` lacks, or that cannot be read."""
    paths = [directory / name for name in FILES]  # no pipes and devices: reading them would block
    return [path.name for path in paths if not (path.is_file() and os.access(path, os.R_OK))]


def check_empty(directory: Path) -> None:
    """Raise `UsageError` unless a checkpoint can be made in `directory`: an empty folder, or one that is not there."""
    where = directory.absolute()
    if not missing_files(directory):
        raise UsageError(f"{where} holds a checkpoint already: name another folder, or delete it first")
    try:
        inside = [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{where} cannot be used as a folder: {error.strerror}") from error
    if set(inside) - {PARTIAL}:
        raise UsageError(f"{where} is not empty: name a folder that is empty or does not exist yet")


def _describe(directory: Path, preset: Preset, special_tokens: list[str]) -> None:
    """Write all files other than the weights."""
    words = list(vocabulary(preset))
    lines = [f"{base64.b64encode(word).decode()} {rank}\n" for rank, word in enumerate(words)]
    (directory / TOKENIZER).write_text("".join(lines), encoding="ascii")
    _write_json(directory / SPECIAL_TOKENS, {token: len(words) + place for place, token in enumerate(special_tokens)})
    (directory / RANDOM_WEIGHTS).write_text(f"Random weights, size {preset}: they make noise.\n", encoding="ascii")
    _write_json(directory / CONFIG, CONFIGS[preset])
    if preset is not Preset.S1_MINI:
        _write_json(directory / CODEC_SIZES, SMALL_CODEC)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
