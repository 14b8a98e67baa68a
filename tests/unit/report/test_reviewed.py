"""What a report says of a batch that was reviewed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloner.collector.result import gather
from cloner.output.reviews import REVIEWS
from cloner.protocol.results import BatchResult, ErrorRateResult, ReviewResult
from cloner.protocol.reviews import ReviewAnswer
from cloner.report.listing import read_listing
from cloner.report.page import body
from cloner.report.rows import Listing
from tests.support.reviews import BATCH_ID, FinishedBatch, ReviewEnd, answers, run_windows
from tests.support.stub_reviewer import BAD, BAD_CHECKS, GOOD, WORSE


def reviewed(tmp_path: Path) -> tuple[FinishedBatch, BatchResult]:
    """A batch of four segments: one fails a check, two others the review."""
    batch = FinishedBatch(
        tmp_path, 4, "all", change=lambda line: replace(line, suspicion=1.5) if line.segment == 0 else line
    )
    record = batch.record()
    review = batch.review(record)
    run_windows(review, answers({"1.1": BAD, "2.1": WORSE}, GOOD))
    result = gather(
        batch.manifest, record, tmp_path, cancelled=False, progress={}, now=1795752042.0, reviews=review.present
    )
    return batch, result


def listing(batch: FinishedBatch, result: BatchResult) -> Listing:
    return read_listing(batch.outputs, result, batch.record().results)


def test_the_checks_of_the_review_are_those_of_its_suspects(tmp_path: Path) -> None:
    batch, result = reviewed(tmp_path)
    assert {index: suspect.failed for index, suspect in result.suspects.items()} == {
        0: [],
        1: BAD_CHECKS,
        2: BAD_CHECKS,
    }
    rows = listing(batch, result).rows
    assert [sorted(row.failed) for row in rows] == [[], ["wrong run", "wrong words"], ["wrong run", "wrong words"], []]
    assert rows[2].suspicion > rows[1].suspicion > rows[0].suspicion == 1.5
    assert rows[3].suspicion < 1


def test_the_most_suspicious_come_first_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, result = reviewed(tmp_path)
    monkeypatch.setattr("cloner.report.rows.MAX_ROWS", 2)
    assert [row.index for row in listing(batch, result).rows] == [1, 2]


def test_a_take_that_was_not_heard_has_what_its_checks_say_and_what_the_take_before_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, _ = reviewed(tmp_path)
    batch.speak(2, 2, batch.record().results[2].digest, suspicion=0.5)
    record = batch.record()
    review = batch.review(record)
    result = gather(
        batch.manifest, record, tmp_path, cancelled=False, progress={}, now=1795752042.0, reviews=review.present
    )
    assert result.suspects[2].failed == BAD_CHECKS
    rows = listing(batch, result).rows
    assert (rows[2].failed, sorted(rows[2].failed_before)) == ([], ["wrong run", "wrong words"])
    assert rows[2].suspicion > rows[1].suspicion > 1
    assert [[*row.failed_before] for row in (rows[0], rows[1], rows[3])] == [[], [], []]
    assert json.loads(rows[2].to_json())["failedBefore"] == rows[2].failed_before
    monkeypatch.setattr("cloner.report.rows.MAX_ROWS", 1)
    assert [row.index for row in listing(batch, result).rows] == [2]


def test_a_take_of_which_only_the_beginning_is_compared_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloner.collector.batch_review.LONGEST_S", 100.0)
    batch = FinishedBatch(
        tmp_path, 3, "all", change=lambda line: replace(line, audio_s=200.0 if line.segment == 1 else 50.0)
    )
    record = batch.record()
    review = batch.review(record)
    run_windows(review, answers({"2.1": ReviewAnswer(naturalness=3.0)}, GOOD))
    result = gather(batch.manifest, record, tmp_path, cancelled=False, progress={}, now=2.0, reviews=review.present)
    rows = listing(batch, result).rows
    assert [row.only_beginning for row in rows] == [False, True, False]
    assert [b'"onlyBeginning":true' in row.to_json() for row in rows] == [False, True, False]


def test_without_its_reviews_there_is_a_report_all_the_same(tmp_path: Path) -> None:
    batch, result = reviewed(tmp_path)
    path = tmp_path / ".cloner" / BATCH_ID / REVIEWS
    path.unlink()
    path.mkdir()
    assert [row.suspicion for row in listing(batch, result).rows] == [1.5, 0, 0, 0]


def test_the_page_has_the_estimated_error_rate(tmp_path: Path) -> None:
    _, result = reviewed(tmp_path)
    assert "Error rate" not in body(result, "main")
    rate = ErrorRateResult(estimate=0.012, low=0.004, high=0.03, sampled=200)
    review = ReviewResult(
        mode="suspects", state="incomplete", reviewed=3, not_reviewed=1, words_not_compared=2, error_rate=rate
    )
    page = " ".join(body(result.model_copy(update={"review": review}), "main").split())
    assert "<dt>Error rate</dt><dd>1.2% <small>estimated, 0.4% to 3%</small></dd>" in page
    assert "review incomplete" in page
    known = review.model_copy(update={"error_rate": rate.model_copy(update={"low": 0.012, "high": 0.012})})
    page_of_all = " ".join(body(result.model_copy(update={"review": known}), "main").split())
    assert "<dt>Error rate</dt><dd>1.2% </dd>" in page_of_all
    assert "incomplete: 3 reviewed, 0 of them fail, 0 spoken again, words not all compared in 2, 1 not reviewed" in page


def test_takes_that_were_rejected_are_beside_the_one_that_stays(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    first = ReviewEnd(batch, 1, {"1.1": BAD})
    first.next_round()
    batch.speak(1, 2, batch.record().results[1].digest)
    second = ReviewEnd(batch, first.number + 2, {"1.2": WORSE})
    second.next_round()
    batch.speak(1, 4, batch.record().results[1].digest)
    third = ReviewEnd(batch, second.number + 2, {})
    assert third.next_round() is None
    result = gather(batch.manifest, third.record, tmp_path, cancelled=False, progress={}, now=2.0)
    row = listing(batch, result).rows[1]
    assert [other.label for other in row.others] == ["take 1: wrong words, wrong run", "take 2: wrong words, wrong run"]
    assert all(other.peaks and (tmp_path / other.path).exists() for other in row.others)
    assert (row.take, row.take_before) == (4, 0)


def test_a_take_that_was_better_than_the_later_one_has_both_its_numbers(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all", attempts=2)
    first = ReviewEnd(batch, 1, {"1.1": BAD})
    first.next_round()
    batch.speak(1, 2, batch.record().results[1].digest)
    second = ReviewEnd(batch, first.number + 2, {"1.2": WORSE})
    assert second.next_round() is None
    result = gather(batch.manifest, second.record, tmp_path, cancelled=False, progress={}, now=2.0)
    rows = listing(batch, result).rows
    assert [(row.take, row.take_before) for row in rows] == [(0, 0), (3, 1)]
    assert [other.label for other in rows[1].others] == ["take 2: wrong words, wrong run"]
    assert json.loads(rows[1].to_json())["takeBefore"] == 1
