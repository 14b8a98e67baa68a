"""The forms of a batch file, each turned into one stream of rows with their places.

A bad row becomes a `Problem` in the stream, so that all of them can be listed. `batch_file.py` checks the rows against
each other and against the files that they name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cloner.batch import ReferenceKind
from cloner.errors import Problem
from cloner.input.parsers import Unreadable, decode, parse_csv, parse_json, parse_yaml
from cloner.input.schema import (
    TASK_KEYS,
    Group,
    GroupReference,
    GroupText,
    Task,
    checked,
    checked_text,
    repeated_keys,
    unknown_key,
)
from cloner.validation import shown

MAX_BYTES = 256 * 1024**2
"""The largest batch file, in bytes: more than a million segments."""

_RIGHT = "give the path of a batch file"


class NamedReference(NamedTuple):
    """A speaker's reference as the batch file names it."""

    kind: ReferenceKind
    file: str
    text: str


class Row(NamedTuple):
    """One text of a batch file; None stands for a value that the file leaves out."""

    place: str
    reference_place: str
    number: int
    """The row's number in the file, from 0."""
    speaker_id: int | str
    text: str
    segment_index: int | None = None
    output_file: str | None = None
    reference: NamedReference | None = None
    id: str | None = None
    seed: int | None = None


Rows = Iterator[Row | Problem]


@dataclass(frozen=True)
class Document:
    """The content of a batch file; `generation` and `checkpoint_dir` are not checked yet."""

    rows: Iterable[Row | Problem]
    generation: object = None
    checkpoint_dir: object = None


def read_document(path: Path) -> Document:
    """The batch file at `path`, in the form that its ending names. Its rows are parsed as they are iterated over."""
    ending = path.suffix.lower()
    if ending not in _FORMS:
        right = f"name it {', '.join(_FORMS)}"
        return Document([Problem("the file", f"the ending {shown(ending)} is not known", right)])
    try:
        text = decode(_read(path))
        if not text.strip():
            raise Unreadable("the file", "it is empty", "give at least one segment")
        return _FORMS[ending](text)
    except OSError as error:
        return Document([Problem("the file", f"it cannot be read ({error.strerror})", _RIGHT)])
    except Unreadable as error:
        return Document([error.problem])


def _read(path: Path) -> bytes:
    """The file's bytes. A device or pipe is not opened: reading it might never end. Raises `OSError`, `Unreadable`."""
    if path.exists() and not path.is_file():
        raise Unreadable("the file", "it is not a file", _RIGHT)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Unreadable("the file", f"it has {size} bytes, and {MAX_BYTES} is the most", "split it into several")
    return path.read_bytes()


def _json(text: str) -> Document:
    return _tree(parse_json(text))


def _yaml(text: str) -> Document:
    return _tree(parse_yaml(text))


def _json_lines(text: str) -> Document:
    return Document(_json_line_rows(text))


def _csv(text: str) -> Document:
    return Document(_csv_rows(text))


_FORMS: dict[str, Callable[[str], Document]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".yaml": _yaml,
    ".yml": _yaml,
}


def _tree(tree: Any) -> Document:
    """The flat or the grouped form."""
    if not isinstance(tree, dict):
        return Document([Problem("the file", f"it holds {shown(tree)}", 'give an object with "tasks" or "speakers"')])
    forms = {"tasks": _flat_rows, "speakers": _grouped_rows}
    named = [key for key in forms if key in tree]
    if len(named) != 1:
        what = 'it has both "tasks" and "speakers"' if named else 'it has neither "tasks" nor "speakers"'
        return Document([*repeated_keys(tree, "the file"), Problem("the file", what, "give one of them")])
    rows = _tree_rows(tree, named[0], forms[named[0]])
    return Document(rows, tree.get("generation"), tree.get("checkpoint_dir"))


def _tree_rows(tree: dict[str, Any], key: str, rows: Callable[[list[object]], Rows]) -> Rows:
    known = (key, "generation", "checkpoint_dir")
    yield from repeated_keys(tree, "the file")
    yield from (unknown_key(other, known, "the file") for other in tree if other not in known)
    if isinstance(tree[key], list):
        yield from rows(tree[key])
    else:
        yield Problem(key, f"it is {shown(tree[key])}", "give a list")


def _flat_rows(tasks: list[object]) -> Rows:
    for number, values in enumerate(tasks):
        yield from _task(values, f"tasks[{number}]", number)


def _json_line_rows(text: str) -> Rows:
    lines = ((line, content) for line, content in enumerate(_lines(text), start=1) if content.strip())
    for number, (line, content) in enumerate(lines):
        try:
            yield from _task(parse_json(content, line), f"line {line}", number)
        except Unreadable as error:
            yield error.problem


def _lines(text: str) -> Iterator[str]:
    """The lines one at a time, because ten million of them as a list take a gigabyte. Only a line feed ends a line, as
    a JSON text may contain U+2028 and the like."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _csv_rows(text: str) -> Rows:
    rows = parse_csv(text)
    try:
        line, header = next(rows, (1, []))
        yield from _bad_columns(header, f"line {line}")
        missing = _missing_columns(header)
        right = "name the columns in the first line, with commas between them"
        yield from (Problem(f"line {line}", f"the column {name} is missing", right) for name in missing)
        if missing:  # every row would have the same problem
            return
        for number, (line, cells) in enumerate(rows):
            if len(cells) == len(header):
                yield from _task(_csv_task(header, cells), f"line {line}", number)
            else:
                what = f"it has {len(cells)} cells, but there are {len(header)} columns"
                yield Problem(f"line {line}", what, "put texts with commas in quotes")
    except Unreadable as error:
        yield error.problem


def _missing_columns(header: list[str]) -> list[str]:
    needed = {"speaker_id": ("speaker_id",), "target_text": ("target_text", "text")}
    return [column for column, names in needed.items() if not any(name in header for name in names)]


def _bad_columns(header: list[str], place: str) -> Iterator[Problem]:
    for name, count in Counter(header).items():
        if name not in TASK_KEYS:
            yield unknown_key(name, TASK_KEYS, place)
        elif count > 1:
            yield Problem(place, f"the column {name} appears {count} times", "keep one")


def _csv_task(header: list[str], cells: list[str]) -> dict[str, object]:
    """A CSV row as a JSON row: without empty cells and unknown columns, index and seed as numbers."""
    values: dict[str, object] = {
        key: cell for key, cell in zip(header, cells, strict=True) if cell and key in TASK_KEYS
    }
    for key in ("segment_index", "seed"):
        number = values.get(key)
        if isinstance(number, str) and re.fullmatch("[0-9]{1,19}", number):
            values[key] = int(number)
    return values


def _task(values: object, place: str, number: int) -> Iterable[Row | Problem]:
    task = checked(Task, values, place)
    if not isinstance(task, Task):
        return task
    reference = None
    if task.npy_file is not None and task.reference_text is not None:
        reference = NamedReference(ReferenceKind.CODES, task.npy_file, task.reference_text)
    return [
        Row(
            place=place,
            reference_place=place,
            number=number,
            speaker_id=task.speaker_id,
            text=task.target_text,
            segment_index=task.segment_index,
            output_file=task.output_file,
            reference=reference,
            id=task.id,
            seed=task.seed,
        )
    ]


def _grouped_rows(speakers: list[object]) -> Rows:
    number = 0
    for position, values in enumerate(speakers):
        place = f"speakers[{position}]"
        group = checked(Group, values, place)
        if not isinstance(group, Group):
            yield from group
        parts = values if isinstance(values, dict) else {}
        reference = _group_reference(parts.get("reference"), f"{place}.reference")
        if not isinstance(reference, NamedReference | None):
            yield from reference
            reference = None
        texts = parts.get("texts")
        for text_position, value in enumerate(texts if isinstance(texts, list) else []):
            text_place = f"{place}.texts[{text_position}]"
            text = checked_text(value, text_place)
            if not isinstance(text, GroupText):
                yield from text
            elif isinstance(group, Group):
                yield Row(
                    place=text_place,
                    reference_place=f"{place}.reference",
                    number=number,
                    speaker_id=group.id,
                    text=text.text,
                    output_file=text.output,
                    reference=reference,
                    id=text.id,
                    seed=text.seed,
                )
            number += 1


def _group_reference(values: object, place: str) -> NamedReference | Iterable[Problem] | None:
    """The reference that a group names, or its problems; what is no object is a problem of the group."""
    if not isinstance(values, dict):
        return None
    found = checked(GroupReference, values, place)
    if not isinstance(found, GroupReference):
        return found
    if found.audio is not None:
        return NamedReference(ReferenceKind.AUDIO, found.audio, found.text)
    return NamedReference(ReferenceKind.CODES, str(found.codes), found.text)
