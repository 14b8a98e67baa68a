"""Checkpoint folders in fish-speech's layout: check one, fetch one, make one of random weights.

Importing this takes no torch, so that a launcher can check a checkpoint before it starts a worker.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from cloner.engine.checkpoint_files import CODEC_SIZES, CONFIG, FILES, SPECIAL_TOKENS, TOKENIZER
from cloner.engine.packages import worker_packages
from cloner.engine.presets import CONFIGS, SMALL_CODEC, Preset, vocabulary
from cloner.errors import BadSetting, ClonerError, LoadFailed, MissingPackage, UsageError

PUBLISHED = {"openaudio-s1-mini": "fishaudio/openaudio-s1-mini"}
"""Checkpoints that have a short name."""

PARTIAL = ".partial"
"""Subfolder where `init_checkpoint` writes before it moves the files up."""


def check_checkpoint(directory: Path) -> None:
    """Raise `LoadFailed` unless all files of a checkpoint are in `directory`. Their contents are not checked."""
    missing = _missing(directory)
    if not missing:
        return
    what = f"has no readable {', '.join(missing)}" if directory.is_dir() else "does not exist"
    raise LoadFailed(
        f"the checkpoint folder {directory.absolute()} {what}: fetch a checkpoint with `cloner checkpoint pull`, make"
        " one of random weights with `cloner checkpoint init`, or set CLONER_CHECKPOINT_DIR to yours"
    )


def pull_checkpoint(name: str, directory: Path) -> Path:
    """Fetch the checkpoint `name` from Hugging Face into `directory`, and return `directory`.

    `name` is one of `PUBLISHED` or a full "owner/model"; "@" and a branch, tag or commit may follow. An interrupted
    pull is resumed.
    Raises `UsageError`, `MissingPackage` or another `ClonerError`, whose message says what to do.
    """
    name, _, revision = name.partition("@")
    repo = name if "/" in name else PUBLISHED.get(name)
    if repo is None:
        raise BadSetting(f"{name!r} is no known checkpoint: give {', '.join(PUBLISHED)}, or a full name as owner/model")
    page = f"https://huggingface.co/{repo}"
    by_hand = f"or copy its folder by hand to {directory.absolute()}"
    try:
        import huggingface_hub  # imported here because only this function needs it
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise MissingPackage(
            f"huggingface-hub is not installed: run `pip install huggingface-hub`, {by_hand}"
        ) from None
    if not (directory / ".cache" / "huggingface").is_dir():  # an interrupted pull leaves it
        _check_empty(directory)
    try:
        huggingface_hub.snapshot_download(
            repo, revision=revision or None, local_dir=directory, allow_patterns=list(FILES)
        )
    except errors.GatedRepoError:
        raise ClonerError(
            f"{repo} wants its licence accepted: do that at {page}, run `hf auth login`, and pull again; {by_hand}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ClonerError(
            f"there is no model {repo} that you may see: check its name at {page}, or run `hf auth login` if it is"
            f" private; {by_hand}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ClonerError(f"{repo} has no revision {revision!r}: give a branch, tag or commit of {page}") from None
    except errors.HFValidationError:
        raise BadSetting(f"{name!r} is not the name of a model: give it as owner/model") from None
    except Exception as error:  # the hub raises errors of its network library, and that library changes
        raise ClonerError(
            f"{repo} could not be fetched ({_first_line(error)}): check the network and the disk, and pull again;"
            f" {by_hand}"
        ) from error
    missing = _missing(directory)
    if missing:  # without network, the hub accepts an incomplete folder
        raise ClonerError(
            f"{directory.absolute()} has no {', '.join(missing)} after the pull: check that the network is up and"
            f" that {page} is a checkpoint of fish-speech, and pull again"
        )
    return directory


def init_checkpoint(directory: Path, preset: Preset, seed: int = 0) -> None:
    """Make a checkpoint of random weights in `directory`, which must be empty or absent.

    It loads and runs like a published one, at the speed of its size, and generates noise. The same preset and seed
    give the same weights. The files that a killed init leaves are not accepted as a checkpoint, and the next init
    removes them. Raises `UsageError`, `MissingPackage` or another `ClonerError`.
    """
    _check_empty(directory)
    with worker_packages():
        from cloner.engine import fish, random_weights  # they import torch
    partial = directory / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _describe(partial, preset, fish.special_tokens())
        random_weights.write(partial, seed)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == CONFIG):
            path.rename(directory / path.name)  # the configuration last: the folder is no checkpoint without it
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        raise ClonerError(f"no checkpoint could be written to {directory.absolute()}: {_first_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _missing(directory: Path) -> list[str]:
    paths = [directory / name for name in FILES]  # no pipes and devices: reading them would block
    return [path.name for path in paths if not (path.is_file() and os.access(path, os.R_OK))]


def _check_empty(directory: Path) -> None:
    where = directory.absolute()
    if not _missing(directory):
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
    _write_json(directory / CONFIG, CONFIGS[preset])
    if preset is not Preset.S1_MINI:
        _write_json(directory / CODEC_SIZES, SMALL_CODEC)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
