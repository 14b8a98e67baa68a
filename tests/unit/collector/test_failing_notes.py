"""The disk under the notes of a review fails for a moment: nothing is counted or learnt twice, or not at all."""

from __future__ import annotations

import errno
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner.errors import RecordUnavailable
from cloner.output.own_folder import OwnFolder
from cloner.protocol.reviews import ReviewAnswer
from cloner.review.judge import Judge
from cloner.state.progress import MOST_REVIEWS
from tests.support.reviews import FinishedBatch, answers, run_windows

GOOD = ReviewAnswer(naturalness=3.0)


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> defaultdict[Judge, Counter[float]]:
    """How often each judge has learnt from takes that sound so."""
    found: defaultdict[Judge, Counter[float]] = defaultdict(Counter)
    learn = Judge.learn

    def note(judge: Judge, speaker: str, likeness: float | None, naturalness: float | None) -> None:
        found[judge][naturalness or 0.0] += 1
        learn(judge, speaker, likeness, naturalness)

    monkeypatch.setattr(Judge, "learn", note)
    return found


def test_what_another_process_has_noted_counts_although_the_first_try_to_read_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learnt: defaultdict[Judge, Counter[float]]
) -> None:
    batch = FinishedBatch(tmp_path, 3 * MOST_REVIEWS, "all")
    first = batch.review()
    run_windows(first, answers({}, GOOD), most=2)
    other = batch.review()
    other.collect(2, [])
    run_windows(other, answers({}, GOOD), number=3, most=1)
    lines = OwnFolder.lines

    def fail_after_some(folder: OwnFolder, name: str, start: int = 0) -> Iterator[bytes]:
        for number, line in enumerate(lines(folder, name, start)):
            if number == 7:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            yield line

    with monkeypatch.context() as failing:
        failing.setattr(OwnFolder, "lines", fail_after_some)
        with pytest.raises(RecordUnavailable):
            first.collect(3, [])
    first.collect(3, [])
    run_windows(first, answers({}, GOOD), number=4)
    assert first.reviewed == 3 * MOST_REVIEWS
    assert [sum(counts.values()) for counts in learnt.values()] == [3 * MOST_REVIEWS, 2 * MOST_REVIEWS]


def test_a_window_that_was_noted_counts_although_the_disk_has_failed_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learnt: defaultdict[Judge, Counter[float]]
) -> None:
    batch = FinishedBatch(tmp_path, 3 * MOST_REVIEWS, "all")
    review = batch.review()
    run_windows(review, answers({}, GOOD), most=2)
    requests = review.window(3)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(RecordUnavailable):
            review.collect(3, [GOOD for _ in requests])
    review.collect(3, [GOOD for _ in requests])
    assert review.reviewed == 2 * MOST_REVIEWS
    assert len(run_windows(review, answers({}, GOOD), number=4)) == 1
    assert review.reviewed == 3 * MOST_REVIEWS
    assert [sum(counts.values()) for counts in learnt.values()] == [2 * MOST_REVIEWS, 3 * MOST_REVIEWS]
