"""Tables, as spreadsheets write them: a comma, semicolon or tab between cells, the columns' names in the first line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cloner.errors import Problem
from cloner.input.forms.tasks import task_rows
from cloner.input.parsers import SEPARATOR_NAMES, Unreadable, parse_csv
from cloner.input.rows import Document, Rows, TextFile
from cloner.input.schema import TASK_KEYS, right_name
from cloner.validation import shown

_SPELLINGS = {"speaker": "speaker_id", "voice": "speaker_id", "text": "target_text"}
"""Other names of columns."""

_NEEDED = {"speaker_id": "speaker_id", "target_text": "text"}
"""Columns that a table must have, and their names in messages."""

_COLUMNS_SHOWN = 5
"""Most columns that a message about several names, and most messages about a table's unknown columns."""


def read_table(file: TextFile) -> Document:
    """A table with a comma, a semicolon or a tab between its cells, whichever its first line has."""
    return Document(_rows(file))


def names_columns(line: str) -> bool:
    """Whether the first line of a table names a column."""
    return any(_known(line, separator) for separator in SEPARATOR_NAMES)


def _rows(file: TextFile) -> Rows:
    text, separator = _separator(file)
    rows = parse_csv(text, separator)
    try:
        line, header = next(rows, (1, []))
        columns, problems = _columns(header, f"line {line}")
        yield from problems
        if problems:  # every row would have the same problem
            return
        _warn_of_unknown(header, columns, f"line {line}", file)
        names = {column: " ".join(cell.split()) for column, cell in zip(columns, header, strict=False)}
        for number, (line, whole) in enumerate(rows):
            cells = _trimmed(whole, len(columns))
            if len(cells) == len(columns):
                yield from task_rows(_task(columns, cells), f"line {line}", number, names)
            else:
                what = f"it has {len(cells)} cells, but there are {len(columns)} columns"
                yield Problem(f"line {line}", what, f"put texts with {SEPARATOR_NAMES[separator]} in quotes")
    except Unreadable as error:
        yield error.problem


def _separator(file: TextFile) -> tuple[str, str]:
    """The table's text, and its separator: that of a first line ``sep=;``, which Excel writes and which is taken out;
    else the one with which the first line names most columns."""
    text = file.text
    line = next((line for _, line in file.lines()), "")
    if excel := re.fullmatch(r"sep=([,;\t])", line):
        return text.replace(line, "", 1), excel[1]
    return text, max(SEPARATOR_NAMES, key=lambda separator: (_known(line, separator), line.count(separator)))


def _known(line: str, separator: str) -> int:
    """How many of the columns that a line names, with this separator, are known."""
    return sum(_column(cell.strip().strip('"')) in TASK_KEYS for cell in line.split(separator))


def _column(cell: str) -> str:
    """The column that a cell of the first line names."""
    name = re.sub(r"[\s-]+", "_", cell.strip().casefold())
    return _SPELLINGS.get(name, name)


def _columns(header: Sequence[str], place: str) -> tuple[list[str], list[Problem]]:
    """The columns, without unnamed ones at the end, and what is wrong with them."""
    columns = [_column(cell) for cell in _trimmed(list(header), 0)]
    problems = []
    for known in TASK_KEYS:
        spelt = [cell for cell, column in zip(header, columns, strict=False) if column == known]
        if len(spelt) > 1:
            names = " and ".join(dict.fromkeys(map(shown, spelt[:_COLUMNS_SHOWN])))
            problems.append(Problem(place, f"the columns {names} are the same", "keep one"))
    if missing := [name for column, name in _NEEDED.items() if column not in columns]:
        said = f"the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)} {_are(missing)} missing"
        if found := ", ".join(shown(cell.strip()) for cell in header[: len(columns)]):
            said += f": it has {found[:200]}"
        problems.append(Problem(place, said, "name the columns in the first line, such as speaker_id,text"))
    return columns, problems


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _warn_of_unknown(header: Sequence[str], columns: Sequence[str], place: str, file: TextFile) -> None:
    unknown = [(cell, column) for cell, column in zip(header, columns, strict=False) if column not in TASK_KEYS]
    for cell, column in unknown[:_COLUMNS_SHOWN]:
        right = right_name("columns", column[:100], TASK_KEYS)
        file.warn(Problem(place, f"the column {shown(cell)} is not known, and is left out", right))
    if (more := len(unknown) - _COLUMNS_SHOWN) > 0:
        file.warn(Problem(place, f"{more} more columns are left out", f"the columns are {', '.join(TASK_KEYS)}"))


def _trimmed(cells: list[str], least: int) -> list[str]:
    """The cells without empty ones at the end, as spreadsheets leave them; at least `least`."""
    while len(cells) > least and not cells[-1].strip():
        cells.pop()
    return cells


def _task(columns: Sequence[str], cells: Sequence[str]) -> dict[str, object]:
    """A row as a JSON row: without empty cells and unknown columns, index and seed as numbers."""
    values: dict[str, object] = {
        column: cell if column == "target_text" else cell.strip()
        for column, cell in zip(columns, cells, strict=True)
        if cell and column in TASK_KEYS
    }
    for column in ("segment_index", "seed"):
        number = values.get(column)
        if isinstance(number, str) and re.fullmatch("[0-9]{1,100}", number):
            values[column] = int(number)
    return values
