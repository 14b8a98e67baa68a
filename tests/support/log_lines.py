"""Finding the lines of an event in a log, whether it is text or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from string import Formatter

from cloner.events import Event


def find_lines(lines: Iterable[str], event: Event, child: str = "", **fields: object) -> list[str]:
    """The event's lines. `child` is the process in whose name the launcher has logged it, as in "Worker 0".

    A field is compared as the line shows it; a compiled pattern must occur in it.
    """
    return [line for line in lines if _match(line, event, child, fields)]


def is_line_of(line: str, event: Event, child: str = "", **fields: object) -> bool:
    """Whether the line is one of the event's, with these fields."""
    return bool(find_lines([line], event, child, **fields))


def fields_of(line: str, event: Event) -> dict[str, str]:
    """The fields of one of the event's lines, as the line shows them."""
    match = _match(line, event, "", {})
    assert match, f"not a line of {event.id}: {line}"
    return {name: text for name, text in match.groupdict().items() if name != "child"}


def _match(line: str, event: Event, child: str, fields: Mapping[str, object]) -> re.Match[str] | None:
    if line.startswith("{"):
        entry = json.loads(line)
        if entry.get("id") != event.id:
            return None
        line = entry["event"]
    return re.fullmatch(_pattern(event.template, child, fields), line, re.DOTALL)


def _pattern(template: str, child: str, fields: Mapping[str, object]) -> str:
    pattern = rf"\[{re.escape(child)}\] " if child else r"(?:\[(?:(?:Worker|Reviewer) \d+|Collector)\] )?"
    names: set[str] = set()
    for literal, name, spec, _ in Formatter().parse(template):
        pattern += re.escape(literal)
        if name is not None:
            names.add(name)
            pattern += f"(?P<{name}>{_value_pattern(fields.get(name), spec or '')})"
    assert fields.keys() <= names, f"{template!r} has no fields {sorted(fields.keys() - names)}"
    return pattern


def _value_pattern(value: object, spec: str) -> str:
    if value is None:
        return ".*?"
    if isinstance(value, re.Pattern):
        return f".*?{value.pattern}.*?"
    return re.escape(format(value, spec))
