"""JSON Lines: one task a line."""

from __future__ import annotations

from cloner.input.forms.tasks import task_rows
from cloner.input.parsers import Unreadable, parse_json
from cloner.input.rows import Document, Rows, TextFile


def read_json_lines(file: TextFile) -> Document:
    """One task a line."""
    return Document(_rows(file))


def _rows(file: TextFile) -> Rows:
    for number, (line, content) in enumerate(file.lines()):
        try:
            yield from task_rows(parse_json(content, line), f"line {line}", number)
        except Unreadable as error:
            yield error.problem
