"""How a batch's progress is printed where there is no terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloner.console import Screen
from cloner.state.batches import BatchState, Progress

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
        "[Main] Progress: 10/10 segments (1 failed), 1.8 audio-s/s, 0 s left",
    ]


@pytest.mark.parametrize("generated", [0, 10])
def test_a_closed_batch_waits_for_no_segment(
    clock: list[float], capsys: pytest.CaptureFixture[str], generated: int
) -> None:
    with Screen().progress_display(plain_lines=True) as show:
        show(replace(START, generated=generated, state=BatchState.DONE))
    assert capsys.readouterr().err == f"[Main] Progress: {generated}/10 segments\n"
