"""The list of takes that ``cloner check`` checks: JSON Lines, with the file, the text and the speaker of each take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path

from cloner.batch import STANDARD_INPUT as FROM_STANDARD_INPUT
from cloner.errors import BadTexts, Problem
from cloner.input.parsers import Unreadable, parse_json
from cloner.input.problems import Problems
from cloner.input.rows import TextFile
from cloner.input.schema import CheckLine, checked
from cloner.input.text_file import STANDARD_INPUT, decode, read_bytes
from cloner.validation import leads_out, shown

_RIGHT = 'give a line such as {"file": "a.wav", "text": "Good morning.", "speaker": "anna"}'

_MANIFEST = {"path", "segment"}
"""Keys by which a line of a batch's ``manifest.jsonl`` is known; its other keys say nothing of what is checked."""


@dataclass(frozen=True, slots=True)
class ListedTake:
    """A line of the list."""

    file: str
    """Relative to the folder, as the line spells it."""
    text: str
    speaker: str
    language: str = ""
    """The text's, empty if it is not known."""


def read_check_list(path: Path, folder: Path, language: str = "") -> list[ListedTake]:
    """The takes that the list at `path` names, ``-`` being standard input; it may be the ``manifest.jsonl`` of a batch.

    Each file must lie in `folder`, all links followed, whether it is there or not, and be named once. `language` is of
    the texts for which the list names none. Raises `BadTexts`, which names each bad line.
    """
    problems = Problems(str(FROM_STANDARD_INPUT if path == STANDARD_INPUT else path), BadTexts)
    takes: list[ListedTake] = []
    try:
        text = decode(read_bytes(path), None, guess=False, warn=problems.warn)
        for line in _lines(TextFile(text, path, folder, problems.warn), folder):
            if isinstance(line, CheckLine):
                takes.append(ListedTake(line.file, line.text, str(line.speaker), line.language or language))
            else:
                problems.add(line)
    except Unreadable as error:
        problems.add(error.problem)
    except OSError as error:
        problems.add(Problem("the file", f"it cannot be read ({error.strerror})", "give the path of a list of takes"))
    if not takes and not problems.count:
        problems.add(Problem("the file", "it names no take", _RIGHT))
    problems.raise_any()
    return takes


def _lines(file: TextFile, folder: Path) -> Iterator[CheckLine | Problem]:
    """The lines that are right, and the problems of the others."""
    first: dict[str, int] = {}
    for number, content in file.lines():
        place = f"line {number}"
        line = _parsed(content, number, place)
        if not isinstance(line, CheckLine):
            yield from line
            continue
        flaws = [*_outside(line, folder, place)]
        name = normpath(line.file)
        if name in first:
            flaws.append(Problem(place, f"file {shown(line.file)} is that of line {first[name]}, too", "keep one"))
        first.setdefault(name, number)
        if flaws:
            yield from flaws
        else:
            yield line


def _parsed(content: str, number: int, place: str) -> CheckLine | Iterable[Problem]:
    try:
        values = parse_json(content, number)
        if isinstance(values, dict) and values.keys() >= _MANIFEST and "file" not in values:
            kept = {key: values[key] for key in CheckLine.model_fields if values.get(key) is not None}
            return checked(CheckLine, {"file": values["path"], **kept}, place, {"file": "path"})
        return checked(CheckLine, values, place)
    except Unreadable as error:
        return [error.problem]


def _outside(line: CheckLine, folder: Path, place: str) -> Iterator[Problem]:
    """The problems of files that are not in the folder."""
    for key, name in (("file", line.file), ("reference", line.reference)):
        if name is not None and (Path(name).is_absolute() or leads_out(folder / name, [folder])):
            yield Problem(place, f"{key} {shown(name)} is not inside {folder}", "name it relative to that folder")
