"""Folders of the recogniser's models: Whisper, converted for CTranslate2. Finding one, and fetching one."""

from __future__ import annotations

import shutil
from pathlib import Path

from cloner.errors import BadSetting, ClonerError, UsageError
from cloner.hub.model_hub import ModelKind, fetch
from cloner.validation import shown

_FILES = ("config.json", "model.bin", "tokenizer.json")
"""Without the last one, faster-whisper would download it."""

_SIZES = ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v3")


def _missing_files(folder: Path) -> list[str]:
    """Names of the files without which `folder` is no model."""
    return [name for name in _FILES if not (folder / name).is_file()]


RECOGNISER = ModelKind(
    name="recogniser",
    origin="a model of Whisper for CTranslate2",
    published={size: f"Systran/faster-whisper-{size}" for size in _SIZES},
    files=(*_FILES, "preprocessor_config.json", "vocabulary.json", "vocabulary.txt"),
    missing=_missing_files,
)


def find_model(wanted: Path, cache: Path) -> Path:
    """The folder of a model: `wanted` itself, or the one in `cache` if that is the name of one that was fetched.

    Raises `BadSetting`.
    """
    setting = f"CLONER_RECOGNISER={shown(str(wanted))}"
    folder = _without_tilde(wanted)
    # A published name is never a folder here: one of that name may have come with a batch.
    if str(wanted).partition("@")[0] in RECOGNISER.published or not _is_folder(folder):
        folder = _fetched(setting, str(wanted), cache)
    if missing := _missing_files(folder):
        right = f"name the folder of {RECOGNISER.origin}"
        raise BadSetting(f"{setting}: {folder} has no {', '.join(missing)}; {right}")
    return folder


def pull_model(name: str, cache: Path) -> Path:
    """Fetch the model `name` into a folder of `cache`, and return that folder, which is complete once it is there.

    `name` is a short name or a full "owner/model"; "@" and a branch, tag or commit may follow. An interrupted pull is
    resumed. Raises `UsageError`, and what `fetch` raises.
    """
    folder = _cached(name, cache)
    if _is_folder(folder):
        raise UsageError(f"{folder} is there already: use it, or delete it first to fetch the model again")
    partial = folder.with_name(f".{folder.name}.partial")
    fetch(RECOGNISER, name, partial, folder)
    try:
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise ClonerError(f"{partial} cannot be renamed to {folder.name} ({error.strerror}): pull again") from error
    return folder


def _fetched(setting: str, name: str, cache: Path) -> Path:
    """The folder of the model of this name that was fetched. Raises `BadSetting`."""
    try:
        folder = _cached(name, cache)
    except BadSetting as error:
        raise BadSetting(f"{setting}: there is no such folder, and {error.message}") from None
    if not _is_folder(folder):
        what = "there is no such folder, and no model of that name has been fetched"
        raise BadSetting(f"{setting}: {what}; run `cloner recogniser pull {name}`, or name the folder of a model")
    return folder


def _cached(name: str, cache: Path) -> Path:
    """Where `cache` has the model of this name. Raises `BadSetting`."""
    repo, revision = RECOGNISER.repository(name)
    folder = f"{repo}@{revision}" if revision else repo
    return _without_tilde(cache).absolute() / folder.replace("/", "--")


def _without_tilde(path: Path) -> Path:
    """`path`, with a home folder for a "~" at its start. Raises `BadSetting`."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise BadSetting(f"{path}: there is no such home folder; name a folder without ~") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long
        return False
