"""How fast a batch goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloner.state.batches import Progress
from cloner.state.throughput import Speed, ThroughputMeter

START = Progress("b", "running", 100, 4, 0, 0, 0, 0.0, 0, cancelled=False)


def at(generated: int) -> Progress:
    return replace(START, generated=generated, audio_s=generated * 4.0)


def test_at_first_it_is_the_mean_since_the_submission() -> None:
    meter = ThroughputMeter(submitted_at=1000.0)
    assert meter.look(1000.0, START) == Speed()
    assert meter.look(1010.0, at(0)) == Speed()
    assert meter.look(1020.0, at(10)) == Speed(audio_s=2.0, left_s=180.0)
    # It slows down as nothing comes.
    assert meter.look(1040.0, at(10)) == Speed(audio_s=1.0, left_s=360.0)


def test_then_it_is_that_of_the_last_half_minute() -> None:
    meter = ThroughputMeter(submitted_at=0.0)
    for second in range(100):
        seen = meter.look(1000.0 + second, at(second // 2))
    assert seen.audio_s == pytest.approx(2.0, rel=0.1)
    assert seen.left_s == pytest.approx(2 * 51, rel=0.1)


def test_a_long_wait_between_two_segments_is_no_standstill() -> None:
    meter = ThroughputMeter(submitted_at=0.0)
    for second in range(300):
        seen = meter.look(float(second), at(second // 60))
    assert seen.audio_s == pytest.approx(4 / 60, rel=0.6)


def test_of_a_batch_that_is_closed_nothing_is_said() -> None:
    meter = ThroughputMeter(submitted_at=0.0)
    assert meter.look(10.0, replace(at(100), state="done")) == Speed()
