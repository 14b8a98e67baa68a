"""The tree forms, JSON and YAML: flat (a list of tasks) or grouped (speakers with their texts)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloner.batch import ReferenceKind
from cloner.errors import Problem
from cloner.input.forms.tasks import task_rows
from cloner.input.numbers import read_numbers, with_numbers_in_words
from cloner.input.parsers import parse_json, parse_yaml
from cloner.input.pronunciation import Pronunciations, read_pronunciations
from cloner.input.rows import Document, NamedReference, Row, Rows, TextFile
from cloner.input.schema import Group, GroupReference, GroupText, checked, checked_text, repeated_keys, unknown_key
from cloner.validation import shown

_OPTIONS = ("generation", "audio", "checkpoint_dir", "review")
"""Keys of the whole batch, in the order of the fields of `Document`."""


def read_json(file: TextFile) -> Document:
    """A batch as one JSON object. Raises `Unreadable`."""
    return _tree(parse_json(file.text))


def read_yaml(file: TextFile) -> Document:
    """A batch as one YAML object. Raises `Unreadable`."""
    return _tree(parse_yaml(file.text))


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
    return Document(rows, *map(tree.get, _OPTIONS))


class _Spelling:
    """How a speaker's texts are given to the model: with words as they are pronounced, then numbers in words."""

    def __init__(self, values: Mapping[str, object], place: str, batch: _Spelling | None = None) -> None:
        """`values` may have ``pronounce`` and ``numbers``; what they leave out is as in the whole `batch`."""
        words, problems = read_pronunciations(values.get("pronounce"), f"{place}pronounce")
        language, more = read_numbers(values.get("numbers"), f"{place}numbers")
        self.problems = problems + more
        self._words: Mapping[str, str] = {**batch._words, **words} if batch else words
        self._language: str | None = language or (batch._language if batch else None)
        self._pronunciations = Pronunciations(self._words)

    def row(self, row: Row) -> Row | Problem:
        """The row with its text as it is given to the model, or what is wrong with that."""
        pronounced = self._pronunciations.row(row)
        if self._language is None or isinstance(pronounced, Problem):
            return pronounced
        return with_numbers_in_words(pronounced, self._language)


def _tree_rows(tree: dict[str, Any], key: str, rows: Callable[[list[object], _Spelling], Rows]) -> Rows:
    known = (key, *_OPTIONS, "pronounce", "numbers")
    yield from repeated_keys(tree, "the file")
    yield from (unknown_key(other, known, "the file") for other in tree if other not in known)
    spelling = _Spelling(tree, "")
    yield from spelling.problems
    if isinstance(tree[key], list):
        yield from rows(tree[key], spelling)
    else:
        yield Problem(key, f"it is {shown(tree[key])}", "give a list")


def _flat_rows(tasks: list[object], spelling: _Spelling) -> Rows:
    for number, values in enumerate(tasks):
        for row in task_rows(values, f"tasks[{number}]", number):
            yield spelling.row(row) if isinstance(row, Row) else row


def _grouped_rows(speakers: list[object], batch_spelling: _Spelling) -> Rows:
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
        spelling = _Spelling(parts, f"{place}.", batch_spelling)
        yield from spelling.problems
        texts = parts.get("texts")
        for text_position, value in enumerate(texts if isinstance(texts, list) else []):
            text_place = f"{place}.texts[{text_position}]"
            text = checked_text(value, text_place)
            if not isinstance(text, GroupText):
                yield from text
            elif isinstance(group, Group):
                row = Row(
                    place=text_place,
                    reference_place=f"{place}.reference",
                    number=number,
                    speaker_id=group.id,
                    text=text.text,
                    output_file=text.output,
                    reference=reference,
                    id=text.id,
                    seed=text.seed,
                    language=text.language or group.language,
                )
                yield spelling.row(row)
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
