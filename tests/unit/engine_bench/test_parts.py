from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from ops.engine_bench.parts import Part, run_part
from ops.engine_bench.table import Report, Row


def two(name: str) -> Iterator[Row]:
    yield Row(f"{name} one", "s", [1.0])
    yield Row(f"{name} two", "s", [2.0])


def fails(_name: str) -> Iterator[Row]:
    yield Row("one", "s", [1.0])
    raise ValueError("no such thing")


def hangs(_name: str) -> Iterator[Row]:
    yield Row("one", "s", [1.0])
    time.sleep(60)


def dies(_name: str) -> Iterator[Row]:
    yield Row("one", "s", [1.0])
    os._exit(3)


def test_rows_of_a_part_come_one_by_one() -> None:
    rows = run_part(Part("both", "", two, 60), "number")
    assert [row.what for row in rows] == ["number one", "number two"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "limit_s", "message"),
    [
        (fails, 60, "part p: ValueError: no such thing"),
        (dies, 60, "part p ended with status 3"),
        (hangs, 12, "part p was stopped after 12 s"),
    ],
)
def test_what_was_measured_before_a_part_failed_is_kept(measure: object, limit_s: float, message: str) -> None:
    report = Report("Title")
    rows = run_part(Part("p", "", measure, limit_s), "x")  # type: ignore[arg-type]
    assert report.add_next(rows)
    assert not report.add_next(rows)
    assert [row.what for row in report.rows] == ["one"]
    assert not report.complete
    assert message in report.notes[0]
