"""The command `check`: takes in a folder, from any speech synthesis, against their texts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloner.cli.options import Language, language_of
from cloner.errors import CheckBroken, UsageError, one_line, printable, reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.settings import load_settings

if TYPE_CHECKING:
    from cloner.checks.check_set import CheckSet
    from cloner.checks.measures import Measures
    from cloner.checks.usual import Usual
    from cloner.input.check_list import ListedTake

AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
"""Files that are takes: one of them that the list does not name is a warning."""

SHOWN = 3
"""Most files that a warning names."""

NOT_CHECKED = "not_checked"
"""What a take fails that cannot be measured, or of which a check raises an error: it is not known to be ok."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A take's result; `sentences` has one for each name in `failed`."""

    file: str
    failed: Sequence[str]
    sentences: Sequence[str]
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        values = {"file": self.file, "ok": not self.failed, "failed": self.failed, "scores": self.scores}
        return json.dumps(values, ensure_ascii=False, allow_nan=False)


def check(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of takes: any format, rate and number of channels.")
    ],
    texts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help='What is said in them, as JSON Lines: {"file": "a.wav", "text": "Good morning.", "speaker": "anna"}.'
            " Files are relative to DIR; - for standard input.",
        ),
    ],
    language: Language = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object for each take, one a line.")] = False,
) -> None:
    """Find takes that went wrong, from any speech synthesis: cut, silent, looping, clipped, too fast."""
    from cloner.checks.check_set import CheckSet, parse_limits
    from cloner.input.check_list import read_check_list

    if not folder.is_dir():
        raise UsageError(f"{printable(folder)} is not a folder: give the folder of the takes")
    checks = CheckSet(parse_limits(load_settings().check_limits))
    takes = read_check_list(texts, folder, language_of(language) or "")
    _warn_of_unlisted(folder, takes)
    wrong = 0
    for result in _results(folder, takes, checks):
        wrong += bool(result.failed)
        if as_json:
            _print(result.to_json())
        elif result.failed:
            _print(f"{one_line(result.file)}: {'; '.join(result.sentences)}")
    if not as_json:
        _print(f"{len(takes) - wrong} of {len(takes)} takes are ok")
    if wrong:
        raise typer.Exit(1)


def _warn_of_unlisted(folder: Path, takes: Sequence[ListedTake]) -> None:
    """Log how many audio files of the folder the list does not name. Hidden folders are passed over."""
    listed = {normpath(take.file) for take in takes}
    unlisted = [file for file in _audio_files(folder) if file not in listed]
    if unlisted:
        some = one_line(printable(", ".join(unlisted[:SHOWN])))
        log_event(Event.TAKES_NOT_LISTED, count=len(unlisted), folder=one_line(printable(folder.absolute())), some=some)


def _audio_files(folder: Path) -> Iterator[str]:
    """Audio files by their names relative to the folder, in order."""
    for inner, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(AUDIO_ENDINGS):
                yield os.path.relpath(Path(inner) / name, folder)


def _results(folder: Path, takes: Sequence[ListedTake], checks: CheckSet) -> Iterator[CheckedFile]:
    """The takes' results, in the order of the list. All are measured first: what is usual is learnt from them."""
    from cloner.checks.measures import Measures
    from cloner.checks.usual import History

    history = History()
    measured: list[Measures | CheckedFile] = []
    for take in takes:
        found = _measured(folder, take)
        measured.append(found)
        if isinstance(found, Measures):
            history.add(take.speaker, found, take.language)
    for take, found in zip(takes, measured, strict=True):
        if isinstance(found, CheckedFile):
            yield found
        else:
            yield _evaluated(take, found, history.usual(take.speaker, found.script, take.language), checks)


def _evaluated(take: ListedTake, measures: Measures, usual: Usual, checks: CheckSet) -> CheckedFile:
    """What the checks say of a take; those that raise an error are named in a sentence."""
    broken: list[str] = []
    result = checks.evaluate(measures, usual, lambda name, error: broken.append(CheckBroken(name, error).message))
    failed = [*result.failed, *[NOT_CHECKED] * bool(broken)]
    return CheckedFile(take.file, failed, [*result.sentences, *broken], result.scores)


def _measured(folder: Path, take: ListedTake) -> Measures | CheckedFile:
    """What is measured of a take; its result, if it cannot be read or measured."""
    from cloner.checks.measures import Take, measure
    from cloner.input.take_file import UnreadableTake, read_take

    try:
        samples, rate = read_take(folder / take.file)
    except FileNotFoundError:
        return CheckedFile(take.file, ["missing"], ["there is no such file"])
    except UnreadableTake as error:
        return CheckedFile(take.file, ["unreadable"], [str(error)])
    try:
        return measure(Take(samples, rate, take.text))
    except Exception as error:  # noqa: BLE001 - the other takes are checked whatever is in this one
        return CheckedFile(take.file, [NOT_CHECKED], [f"it cannot be measured ({reason_of(error)})"])


def _print(line: str) -> None:
    # UTF-8 whatever the terminal's encoding, as for other results.
    sys.stdout.buffer.write(printable(line).encode() + b"\n")
