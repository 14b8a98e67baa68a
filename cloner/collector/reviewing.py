"""The review of a batch, round by round: takes go to the reviewers in windows, and what fails is spoken again.

A window is a round of the batch, as its chunks are. What it sends is noted before the round begins, what comes back
before the next one does, so a process that dies at any moment repeats no finished review: the message that ends the
round is delivered again, or the batch is found stalled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

from cloner.checks.check_set import parse_limits
from cloner.collector.batch_review import BatchReview
from cloner.collector.disk import retry_on_failing_disk
from cloner.collector.publish import publish_reviews, read_answers
from cloner.collector.review_result import review_result
from cloner.collector.review_turns import may_be_reviewed, open_rounds
from cloner.collector.rounds import recorded
from cloner.collector.spoken_again import SpokenAgain
from cloner.errors import Damaged, RecordFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.output.reviews import TakeReview
from cloner.protocol.messages import Manifest
from cloner.protocol.results import ReviewResult
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.counters import Count, Counters, failed_check
from cloner.state.progress import ChunkProgress, Round

_kept: dict[str, BatchReview] = {}
"""The reviews, by batch id, of which this process has sent a window: to make one again from the disk takes as long as
the batch is large. They are as few as `review_turns` allows."""


def send_next_window(batches: BatchStore, settings: Settings, batch_id: str, ended: Round, *, end_review: bool) -> bool:
    """Judge the answers to the window that has `ended`, and send the next; False if this process has sent no window of
    that review, or no other follows, or the reviews cannot be kept, or with `end_review`. What was kept of the review
    is dropped then: it is read from the disk, and would be in memory twice."""
    review = _kept.pop(batch_id, None)
    if review is None or end_review or not _is_of(review, ended):
        return False
    try:
        retry_on_failing_disk(settings)(_collect, review, batch_id, ended)
        return _send_window(review, batches, settings, ended, {})
    except RecordFailed as error:
        log_event(Event.FAILED, error=error.message)
        return False


class Reviewing:
    """The review of a batch whose chunks, or whose window, have come to an end.

    Where its reviews cannot be kept, since the disk is full or fails, it ends.
    """

    def __init__(self, manifest: Manifest, record: Record, outputs: OutputRoot, settings: Settings) -> None:
        self._manifest = manifest
        self._record = record
        self._outputs = outputs
        self._settings = settings
        self._is_complete = False
        self._review: BatchReview | None = None
        self.again: Round | None = None
        """A round of takes that are spoken again, which `go_on` has begun, and whose chunks are to be published. If the
        process dies before, the batch is stalled, and opened again."""
        self.present: Mapping[int, TakeReview] = {}
        """What is said of the segments' takes as they are, after `end`."""

    def collect(self, ended: Round) -> None:
        """Find out how far it has come, and judge what the reviewers have answered to the round that has `ended`."""
        if self._manifest.review == "none":
            return
        retry = retry_on_failing_disk(self._settings)
        try:
            limits = parse_limits(self._settings.check_limits)
            self._review = retry(BatchReview, self._manifest, self._record, self._outputs, limits)
            if ended.reviews:
                retry(_collect, self._review, self._manifest.batch_id, ended)
        except RecordFailed as error:
            log_event(Event.FAILED, error=error.message)

    def go_on(self, batches: BatchStore, ended: Round, reported: Mapping[int, ChunkProgress]) -> bool:
        """Send what is not reviewed, or some of it; or begin a round that speaks again what fails. False if nothing is
        left to do.

        `reported` is the progress of the chunks, by number.
        """
        if self._review is None:
            return False
        try:
            if _send_window(self._review, batches, self._settings, ended, self._finished(ended)):
                return True
            again = SpokenAgain(self._review, self._manifest, self._record, self._outputs)
            retry = retry_on_failing_disk(self._settings)
            retry(again.keep_better)
            following, progress = retry(again.next_round, ended, reported)
        except RecordFailed as error:
            log_event(Event.FAILED, error=error.message)
            return False
        if following is None:
            self._is_complete = True
            return False
        if batches.begin_round(self._manifest.batch_id, following, progress, len(self._manifest.chunks)):
            batch_id, count, repeated = self._manifest.batch_id, again.count, again.repeated
            log_event(Event.SPOKEN_AGAIN, batch=batch_id, segments=count, repeated=repeated)
            self.again = following
        return True

    def end(self) -> None:
        """Before the batch is closed: where the review has not come to its end, takes that were replaced and are better
        get their names again."""
        if self._review is None:
            return
        if not self._is_complete:
            again = SpokenAgain(self._review, self._manifest, self._record, self._outputs)
            try:
                retry_on_failing_disk(self._settings)(again.keep_better)
            except RecordFailed as error:
                log_event(Event.FAILED, error=error.message)
        self.present = self._review.present  # each call builds a dictionary of up to a million takes

    def result(self) -> ReviewResult:
        """What it has come to, before the record gets what else has failed."""
        mode, is_complete = self._manifest.review, self._is_complete
        return review_result(mode, self._review, self._record, self.present, is_complete=is_complete)

    def count_failures(self, counters: Counters) -> None:
        """Count the checks that takes have failed, and the suspects that the review alone has found, by the worker that
        has the segment's present take. What an earlier batch has found was counted with that one."""
        growth: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for take in self._review.reviews.takes.values() if self._review else ():
            if not take.taken_over and (line := self._record.results.get(take.segment)):
                growth[line.worker].update(map(failed_check, take.failed))
        for segment, take in self.present.items():
            line = self._record.results[segment]
            if take.failed and not line.is_suspect and not take.taken_over:
                growth[line.worker][Count.REVIEW_SUSPECTS] += 1
        for worker, failed in growth.items():
            counters.add(worker, failed)

    def _finished(self, ended: Round) -> dict[int, ChunkProgress]:
        """The progress of the chunks of a round that has spoken takes again: what it could not speak counts as
        before."""
        chunks = (chunk for chunk in self._manifest.chunks if ended.again and chunk.number in (ended.chunks or ()))
        progress = {chunk.number: recorded(self._manifest, chunk, self._record) for chunk in chunks}
        for counts in progress.values():
            counts.finished = True
        return progress


def _keep(review: BatchReview, batches: BatchStore) -> None:
    """Keep a review for its next window, and no longer those that have ended, by another process."""
    for batch_id, other in [*_kept.items()]:
        try:
            is_under_way = batches.is_open(batch_id) and _is_of(other, batches.round(batch_id))
        except Damaged:
            is_under_way = False
        if not is_under_way:
            del _kept[batch_id]
    _kept[review.batch_id] = review


def _is_of(review: BatchReview, present: Round) -> bool:
    """Whether only windows have followed, up to a round, that which this process has sent last of a review: of the
    batch's takes, none is another."""
    return present.reviews > 0 and present.windows_since <= review.number <= present.number


def _collect(review: BatchReview, batch_id: str, ended: Round) -> None:
    review.collect(ended.number, read_answers(batch_id, ended))


def _send_window(
    review: BatchReview, batches: BatchStore, settings: Settings, ended: Round, progress: Mapping[int, ChunkProgress]
) -> bool:
    """Send what comes next to the reviewers, or wait until other batches are reviewed; False if nothing is left."""
    number = ended.number + 1
    to_review = max(len(review.takes), review.reviewed)
    following = replace(
        Round(number, (), ended.missing, ended.fruitless), reviewed=review.reviewed, to_review=to_review
    )
    if not ended.reviews:
        if not review.is_pending:
            return False
        if not may_be_reviewed(review.batch_id, to_review, open_rounds(batches)):
            waiting = replace(following, waits=True)
            if not ended.waits and batches.begin_round(review.batch_id, waiting, progress, review.chunks):
                log_event(Event.REVIEW_WAITS, batch=review.batch_id, takes=to_review - review.reviewed)
            return True
    requests = retry_on_failing_disk(settings)(review.window, number)
    if not requests:
        return False
    since = ended.windows_since if ended.reviews else number
    following = replace(following, reviews=len(requests), reviewed=review.reviewed, windows_since=since)
    if batches.begin_round(review.batch_id, following, progress, review.chunks):
        if not ended.reviews:
            log_event(Event.REVIEW_BEGUN, batch=review.batch_id, takes=to_review - review.reviewed)
        _keep(review, batches)
        # If this process dies before it has sent them, the batch is stalled: they count as sent without an answer.
        publish_reviews(review.batch_id, following, settings, requests)
    return True
