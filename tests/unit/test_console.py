"""How a batch's progress is printed where there is no terminal."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from cloner.console import MOST_ROWS, Screen, print_rows
from cloner.state.progress import BatchState, Progress, Round

START = Progress("b", BatchState.RUNNING, 10, 2, 0, 0, 0, 0.0, 0, cancelled=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, in seconds, which the test sets."""
    now = [100.0]
    monkeypatch.setattr("cloner.console.time.monotonic", lambda: now[0])
    return now


def test_progress_is_printed_from_the_first_segment_to_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Screen().progress_display(plain_lines=True) as show:
        for generated in (0, 2, 4):
            show(replace(START, generated=generated, audio_s=generated * 3.0))
            clock[0] += 6
        show(replace(START, generated=9, failed=1, audio_s=27.0, state=BatchState.DONE))
    assert capsys.readouterr().err.splitlines() == [
        "[Main] Progress: 0/10 segments, waiting for the first segment",
        "[Main] Progress: 2/10 segments",
        "[Main] Progress: 4/10 segments, 1.0 audio-s/s, 18 s left",
        "[Main] Progress: 10/10 segments (1 failed), 1.8 audio-s/s",
    ]


def test_how_far_the_review_is_stands_in_the_place_of_the_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Screen().progress_display(plain_lines=True) as show:
        show(replace(START, generated=10, round=Round(3, (), reviews=32, reviewed=312, to_review=500)))
    assert capsys.readouterr().err.splitlines() == ["[Main] Progress: 10/10 segments, reviewing 312 of 500"]


@pytest.mark.parametrize("generated", [0, 10])
def test_a_closed_batch_waits_for_no_segment(
    clock: list[float], capsys: pytest.CaptureFixture[str], generated: int
) -> None:
    with Screen().progress_display(plain_lines=True) as show:
        show(replace(START, generated=generated, state=BatchState.DONE))
    assert capsys.readouterr().err == f"[Main] Progress: {generated}/10 segments\n"


def test_all_lines_are_copied_to_a_file_and_nothing_is_shown_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    screen, file = Screen(quiet=True), StringIO()
    screen.log("[Main] Speakers: 2")
    screen.copy_to(file)
    screen.log("[Worker 0] Speaker 0 progress: 5/8")
    with screen.progress_display(plain_lines=True) as show:
        show(START)
    assert capsys.readouterr().err == ""
    assert file.getvalue().splitlines() == ["[Main] Speakers: 2", "[Worker 0] Speaker 0 progress: 5/8"]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_lines_that_say_what_the_bar_says_are_left_out_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    screen = Screen()
    screen.log("[Worker 0] Processing Speaker 0 (1/2)")
    screen.log("[Worker 0] This speaker has 8 texts")
    screen.log("[Worker 0] Speaker 0 progress: 5/8")
    assert len(capsys.readouterr().err.splitlines()) == (1 if is_terminal else 3)


def test_a_log_that_cannot_be_kept_is_said_once_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    with open("/dev/full", "a") as full:  # noqa: PTH123 - a device
        screen.copy_to(full)
        screen.log("[Main] Speakers: 2")
        screen.log("[Main] Speakers: 3")
        screen.copy_to(None)
        with suppress(OSError):
            full.close()
    assert capsys.readouterr().err.splitlines() == [
        "[Main] The run's log is not kept from here on: [Errno 28] No space left on device",
        "[Main] Speakers: 2",
        "[Main] Speakers: 3",
    ]


@pytest.mark.parametrize(
    ("count", "shown", "more"), [(MOST_ROWS, MOST_ROWS, ""), (100_000, MOST_ROWS + 1, "99000 more")]
)
def test_a_table_of_any_number_of_rows_is_short_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int, shown: int, more: str
) -> None:
    monkeypatch.setattr("cloner.console.Console", lambda **options: Console(force_terminal=True, width=150, **options))
    rows = [(f"speaker {number}", "1") for number in range(count)]
    print_rows(("Speaker", "Texts"), rows, 2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "speaker" in line or "more" in line]
    assert len(lines) == shown
    assert more in lines[-2]
    assert f"speaker {count - 1} " in lines[-1]


def test_where_there_is_no_terminal_all_rows_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("Speaker",), [(str(number),) for number in range(2 * MOST_ROWS)], 1)
    assert capsys.readouterr().out.splitlines() == ["Speaker", *map(str, range(2 * MOST_ROWS))]
