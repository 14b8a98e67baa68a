from __future__ import annotations

import pytest

from ops.engine_bench.table import NotHereError, Report, Row


def test_a_ratio_is_formed_run_by_run_and_says_how_many_times_better_ours_is() -> None:
    assert Row("rate", "frames/s", ours=[40, 90], against=[2, 3]).ratios() == [20, 30]
    assert Row("load", "s", ours=[2, 5], against=[8, 10], less_is_better=True).ratios() == [4, 2]


def test_the_spread_is_that_of_the_ratio_or_else_of_our_figure() -> None:
    held = Row("rate", "frames/s", ours=[40, 90, 60], against=[2, 3, 1.5], goal=">= 25x")
    assert held.cells() == ("rate", "60 frames/s", "2 frames/s", "30x", "20 to 40", "3", ">= 25x", "")
    assert Row("read", "s", ours=[2.5, 0.512, 3]).cells()[1:6] == ("2.5 s", "", "", "0.512 to 3", "3")
    assert Row("once", "s", ours=[1234.5]).cells()[1:6] == ("1234 s", "", "", "", "1")


def test_what_fails_is_noted_and_the_other_rows_stay(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> list[Row]:
        raise RuntimeError("no room")

    def not_here() -> list[Row]:
        raise NotHereError("there is no card")

    report = Report("A title")
    report.add(not_here)
    after_the_first = report.complete
    report.add(broken)
    report.add(lambda: [Row("rate", "frames/s", [3])])
    assert (after_the_first, report.complete) == (True, False), "what cannot be had here is no failure"
    lines = report.markdown().splitlines()
    assert lines[0] == "A title"
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ") and "---" not in line] == [
        "what",
        "rate",
    ]
    assert lines[-3:] == ["Not measured here: there is no card.", "", "Failed: RuntimeError: no room"]
    assert "rate · 3 frames/s" in capsys.readouterr().err
