"""Samples of a batch, and what they say of its error rate."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from cloner.review.error_rate import MOST_SAMPLED, choose_sample, estimate_error_rate


@pytest.mark.parametrize(("failed", "reviewed"), [(0, 1), (1, 1), (0, 200), (3, 200), (199, 200), (7, 40)])
def test_the_interval_is_wilsons(failed: int, reviewed: int) -> None:
    rate = estimate_error_rate(failed, reviewed)
    interval = binomtest(failed, reviewed).proportion_ci(0.95, method="wilson")
    assert rate.estimate == failed / reviewed
    assert [rate.low, rate.high] == pytest.approx([interval.low, interval.high], abs=1e-12)


@pytest.mark.parametrize(("failed", "reviewed"), [(0, 0), (2, 1), (-1, 5)])
def test_counts_that_cannot_be_are_refused(failed: int, reviewed: int) -> None:
    with pytest.raises(ValueError, match=f"{failed} of {reviewed} segments failed"):
        estimate_error_rate(failed, reviewed)


def test_a_sample_is_the_same_each_time_and_another_for_another_seed() -> None:
    sample = choose_sample(range(10_000), seed=7)
    assert sample == choose_sample(reversed(range(10_000)), seed=7) == sorted({*sample})
    assert len(sample) == MOST_SAMPLED
    assert len({*sample} & {*choose_sample(range(10_000), seed=8)}) < 20  # 4 by chance


def test_a_sample_is_of_the_whole_batch() -> None:
    sample = choose_sample(range(10_000), seed=7)
    assert 70 <= sum(segment < 5_000 for segment in sample) <= 130  # 100 by chance, 7 being one deviation


def test_a_sample_stays_mostly_the_same_when_segments_are_added() -> None:
    before, after = choose_sample(range(10_000), seed=7), choose_sample(range(10_100), seed=7)
    assert len({*before} & {*after}) >= 190


def test_all_of_a_small_batch_is_its_sample() -> None:
    assert choose_sample(range(5), seed=0) == [0, 1, 2, 3, 4]
    assert choose_sample([], seed=0) == []
