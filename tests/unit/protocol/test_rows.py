"""Rows: arrays of JSON as they always were, and nothing else."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from cloner.protocol.rows import SegmentRow, TakeRow

SEGMENT = SegmentRow(3, "Good morning.", "a/3.wav", 7)
TAKE = TakeRow(3, 2, 99, "d1" * 16)


@pytest.mark.parametrize("row", [SEGMENT, TAKE])
def test_a_row_travels_as_an_array(row: SegmentRow | TakeRow) -> None:
    adapter: TypeAdapter[SegmentRow | TakeRow] = TypeAdapter(type(row))
    data = adapter.dump_json(row)
    assert data == json.dumps(list(row), separators=(",", ":")).encode()
    for found in (adapter.validate_json(data), adapter.validate_python(json.loads(data))):
        assert found == row
        assert type(found) is type(row)


@pytest.mark.parametrize(
    "row",
    [
        [3, "Good morning.", "a/3.wav"],
        [3, "Good morning.", "a/3.wav", 7, 8],
        [3, "Good morning.", "../3.wav", 7],
        [-1, "Good morning.", "a/3.wav", 7],
    ],
)
def test_a_row_of_another_form_is_refused(row: list[object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SegmentRow).validate_json(json.dumps(row))


@pytest.mark.parametrize("row", [SEGMENT, TAKE])
def test_an_object_is_refused_with_one_error_however_many_keys_it_has(row: SegmentRow | TakeRow) -> None:
    data = json.dumps({**row._asdict(), **{f"key {n}": n for n in range(1000)}})
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(type(row)).validate_json(data)
    assert caught.value.error_count() == 1
