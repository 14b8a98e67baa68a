"""Parsing a file's text: JSON, YAML and CSV. Every error names its line.

Stricter than the parsers beneath: keys that appear twice are noted, and YAML anchors, aliases and tags are refused, so
that a small file cannot expand to a huge one.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any, Protocol

import yaml

from cloner.errors import Problem

_MAX_DEPTH = 20
"""Most nested levels of a YAML file. A batch has five; the parser takes minutes for a far deeper one."""

_MAX_YAML_VALUES = 1_000_000
"""Most values of a YAML file, keys included: PyYAML takes 400 bytes and 20 microseconds for each."""


SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What separates the cells of a table."""


class Unreadable(Exception):
    """The text cannot be parsed; `problem` says where and why."""

    def __init__(self, where: str, what: str, right: str) -> None:
        self.problem = Problem(where, what, right)
        super().__init__(str(self.problem))


class Repeated(dict[str, Any]):
    """An object in which some keys appear more than once; it holds their last values."""

    __slots__ = ("keys_repeated",)  # a bad file may have a million of them

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        repeated = set()
        for key, value in pairs:
            if key in self:
                repeated.add(key)
            self[key] = value
        self.keys_repeated = tuple(key for key in self if key in repeated)


class Misread:
    """A YAML value that is not what it looks like, such as ``yes``, ``12:30`` or ``010``."""

    def __init__(self, written: str, meant: object) -> None:
        self._text = f"{written}, which YAML reads as {'a date' if isinstance(meant, date) else str(meant).lower()}"

    def __str__(self) -> str:
        return self._text


def parse_json(text: str, first_line: int = 1) -> Any:
    """One JSON value; `first_line` is the number of the text's first line in its file. Raises `Unreadable`."""
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {first_line + error.lineno - 1}, column {error.colno}"
        right = "check the quotes, commas and brackets there, and that the file was not cut off"
        raise Unreadable(where, f"this is not JSON ({error.msg})", right) from None
    except RecursionError:
        raise Unreadable(f"line {first_line}", "the JSON is nested too deeply", "give a batch") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise Unreadable(f"line {first_line}", f"this is not usable JSON ({error})", "give smaller numbers") from None


def parse_yaml(text: str) -> Any:
    """One YAML document of plain objects, lists, texts and numbers. Raises `Unreadable`."""
    try:
        values = 0
        for event, depth in _yaml_events(text):
            _check_yaml(event, depth)
            values += isinstance(event, yaml.NodeEvent)
            if values > _MAX_YAML_VALUES:
                what = f"the YAML has more than {_MAX_YAML_VALUES} keys and values"
                raise Unreadable(_yaml_place(event.start_mark), what, "write so large a batch as .jsonl or .csv")
        return yaml.load(text, Loader=_YamlLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = _yaml_place(error.problem_mark or error.context_mark)
        right = "check the indentation, and put texts with special characters in quotes"
        raise Unreadable(where, f"this is not YAML ({error.problem or error.context})", right) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"a character that YAML does not allow ({error.reason})"
        raise Unreadable(f"line {line}", what, "remove the control characters") from None
    except ValueError as error:  # a value that looks like a date or a number, and is not a valid one
        raise Unreadable("the file", f"a YAML value has no meaning ({error})", "put texts in quotes") from None


def parse_csv(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its first line. Raises `Unreadable`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cells):  # spreadsheets leave rows of empty cells at the end
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        if str(error).startswith("field larger"):
            what = f"a cell has more than {csv.field_size_limit()} characters"
            raise Unreadable(f"line {line}", what, "shorten it, or close its quotes") from None
        right = f"put texts with {SEPARATOR_NAMES[separator]} or quotes in quotes, and double the quotes inside"
        raise Unreadable(f"line {line}", f"this is not CSV ({error})", right) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    return values if len(values) == len(pairs) else Repeated(pairs)


_JSON = json.JSONDecoder(object_pairs_hook=_object)


class _Mark(Protocol):
    """A position in the text; PyYAML has two types of it."""

    line: int
    column: int


class _YamlLoader(yaml.CSafeLoader):
    """A safe loader whose objects have only texts as keys."""


def _yaml_object(loader: _YamlLoader, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    for (key, _), (key_node, _) in zip(pairs, node.value, strict=True):
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(problem="a key is not text", problem_mark=key_node.start_mark)
    return _object(pairs)


_PLAIN = {"bool": "(?i:true|false)", "int": "[-+]?(0|[1-9][0-9]*)", "float": "[^:_]*", "timestamp": "(?!)"}
"""Spellings that are accepted, by YAML's types: no ``yes`` and ``no``, no octal or sexagesimal numbers, no dates."""


def _yaml_scalar(loader: _YamlLoader, node: yaml.ScalarNode) -> Any:
    value = yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    kind = node.tag.rpartition(":")[2]
    return value if re.fullmatch(_PLAIN[kind], node.value) else Misread(node.value, value)


_YamlLoader.add_constructor("tag:yaml.org,2002:map", _yaml_object)
for _kind in _PLAIN:
    _YamlLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _yaml_scalar)


def _yaml_events(text: str) -> Iterator[tuple[yaml.Event, int]]:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        yield event, depth


def _check_yaml(event: yaml.Event, depth: int) -> None:
    where = _yaml_place(event.start_mark)
    if depth > _MAX_DEPTH:
        raise Unreadable(where, "the YAML is nested too deeply", "give a batch")
    if isinstance(event, yaml.NodeEvent) and event.anchor:
        raise Unreadable(where, f"the YAML anchor or alias {event.anchor} is not taken", "write the value out")
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
        raise Unreadable(where, f"the YAML tag {event.tag} is not taken", "write plain texts, numbers, lists and keys")


def _yaml_place(mark: _Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
