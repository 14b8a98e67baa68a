"""What a batch's result says of its review."""

from __future__ import annotations

from collections.abc import Mapping

from cloner.batch import Review
from cloner.collector.batch_review import BatchReview
from cloner.output.record import Record
from cloner.output.reviews import TakeReview
from cloner.protocol.results import ErrorRateResult, ReviewResult
from cloner.review.error_rate import error_rate_of_batch


def review_result(
    mode: Review,
    review: BatchReview | None,
    record: Record,
    present: Mapping[int, TakeReview],
    *,
    is_complete: bool,
) -> ReviewResult:
    """How far the review of a batch has come that is closed, and what it says; `review` is None where none began, or
    where its notes could not be kept. `present` is what is said of the segments' takes as they are."""
    if mode == "none":
        return ReviewResult()
    if review is None:
        return ReviewResult(mode=mode, state="incomplete")
    reviewed = {segment for segment, found in present.items() if not found.error}
    failed = {segment for segment, found in present.items() if found.failed}
    return ReviewResult(
        mode=mode,
        state="complete" if is_complete else "incomplete",
        reviewed=len(reviewed),
        failed=len(failed & reviewed),
        unknown_language=sum(present[segment].words == "unknown_language" for segment in reviewed),
        not_reviewed=len(review.takes) - len(reviewed),
        words_not_compared=sum(present[segment].words not in ("compared", None) for segment in reviewed),
        spoken_again=review.spoken_again,
        error_rate=_error_rate(review, record, reviewed, failed, is_of_all=is_complete and mode == "all"),
    )


def _error_rate(
    review: BatchReview, record: Record, reviewed: set[int], failed: set[int], *, is_of_all: bool
) -> ErrorRateResult | None:
    """Of the segments with audio. Those that were reviewed, or fail a check, count as they are; the others as those of
    the random sample were at first that did not fail a check when they were generated. Where no sample was drawn, since
    all were to be reviewed, a few of them may not have been; else what is known without one is of suspects alone."""
    spoken = {index for index, line in record.results.items() if line.generated}
    bad = {index for index in spoken if record.results[index].is_suspect} | failed
    unknown = len(spoken - bad - reviewed)
    first = _first_of_sample(review)
    if not spoken or (unknown and not first and (not is_of_all or unknown == len(spoken))):
        return None
    rate = error_rate_of_batch(
        total=len(spoken),
        failed=len(bad),
        unknown=unknown,
        sampled=len(first),
        sampled_failed=sum(bool(found.failed) for found in first.values()),
    )
    return ErrorRateResult(
        estimate=round(rate.estimate, 6), low=round(rate.low, 6), high=round(rate.high, 6), sampled=len(first)
    )


def _first_of_sample(review: BatchReview) -> Mapping[int, TakeReview]:
    first = review.reviews.first
    return {
        segment: found
        for segment in review.reviews.sample or ()
        if (found := first.get(segment)) and not found.error and not found.suspect
    }
