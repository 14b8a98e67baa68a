"""Rates of growing totals, and the throughput of a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloner.state.batches import BatchState, Progress
from cloner.state.throughput import RateMeter, Throughput, ThroughputMeter

START = Progress("b", BatchState.RUNNING, 100, 4, 0, 0, 0, 0.0, 0, cancelled=False)


def at(generated: int) -> Progress:
    return replace(START, generated=generated, audio_s=generated * 4.0)


def test_a_rate_is_the_growth_since_the_first_sample() -> None:
    meter = RateMeter()
    assert meter.rates(5.0, 7.0) == (0.0,)
    meter.add(10.0, 100.0, 1.0)
    assert meter.rates(10.0, 100.0, 1.0) == (0.0, 0.0)
    meter.add(15.0, 105.0, 1.0)
    assert meter.rates(1010.0, 2100.0, 1.0) == (2.0, 0.0)
    meter.clear()
    assert len(meter) == 0
    assert meter.rates(1010.0, 2100.0, 1.0) == (0.0, 0.0)


def test_a_window_starts_at_the_newest_sample_that_is_old_enough() -> None:
    meter = RateMeter(window_s=15.0)
    for now, total in ((0.0, 0.0), (5.0, 50.0), (10.0, 100.0), (20.0, 120.0)):
        meter.add(now, total)
    assert meter.rates(20.0, 120.0) == (70.0 / 15.0,)
    # Two samples are kept, so that there is growth between them.
    assert meter.rates(1010.0, 120.0) == (20.0 / 1000.0,)
    assert len(meter) == 2


def test_throughput_starts_as_the_mean_since_the_submission() -> None:
    meter = ThroughputMeter(submitted_at=1000.0)
    assert meter.update(1000.0, START) == Throughput()
    assert meter.update(1010.0, at(0)) == Throughput()
    assert meter.update(1020.0, at(10)) == Throughput(audio_s=2.0, left_s=180.0)
    # It decreases while no segment finishes.
    assert meter.update(1040.0, at(10)) == Throughput(audio_s=1.0, left_s=360.0)


def test_throughput_becomes_that_of_the_last_half_minute() -> None:
    meter = ThroughputMeter(submitted_at=0.0)
    for second in range(100):
        seen = meter.update(1000.0 + second, at(second // 2))
    assert seen.audio_s == pytest.approx(2.0, rel=0.1)
    assert seen.left_s == pytest.approx(2 * 51, rel=0.1)


def test_throughput_is_positive_during_a_long_wait_between_two_segments() -> None:
    meter = ThroughputMeter(submitted_at=0.0)
    for second in range(300):
        seen = meter.update(float(second), at(second // 60))
    assert seen.audio_s == pytest.approx(4 / 60, rel=0.6)


def test_a_closed_batch_has_no_throughput() -> None:
    meter = ThroughputMeter(submitted_at=0.0)
    assert meter.update(10.0, replace(at(100), state=BatchState.DONE)) == Throughput()
