"""The review of one batch: which of its takes are reviewed, what is sent to the reviewers next, and what comes back.

All of it follows from what is on the disk, so another process goes on where one has died. Kept in the collector's
process from one window to the next, since a batch may have a million takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from cloner.batch import ReferenceKind
from cloner.collector.review_choice import ChosenTake, choose_takes, draw_sample, reused_takes
from cloner.collector.review_requests import Unreadable, reference_request, take_request
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.output.redo import spoken_again
from cloner.output.reviews import Reviewed, Reviews, TakeReview, Words
from cloner.protocol.messages import Manifest, ReferenceRow
from cloner.protocol.results import SegmentResult
from cloner.protocol.reviews import LONGEST_S, ReviewAnswer, ReviewRequest
from cloner.review.heard import Heard
from cloner.review.judge import Judge
from cloner.review.likeness import Likeness
from cloner.state.progress import MOST_REVIEWS

WINDOW_S = 600.0
"""Seconds of audio after which a window is full, too: all of it is in Redis at once, 15 MB if it is speech."""

MOST_REFERENCES = 200
"""References of other speakers than those whose takes are reviewed are heard until there are so many in all: takes are
compared with each."""

MOST_SENT = 2
"""Rounds that send a take which gets no answer, or that it cannot be heard, before it is given up: the first reviewer
may be at fault. In each round, its review may have killed three reviewers."""

REVIEW_ENDED = "the review has ended before"

UNREADABLE = "what its review has found cannot be noted"

UNANSWERED = "its review has killed its reviewers again and again, or got lost"


class BatchReview:
    """The review of one batch, as far as it has come. Methods raise `RecordFailed`."""

    def __init__(self, manifest: Manifest, record: Record, outputs: OutputRoot, limits: Mapping[str, float]) -> None:
        """`record` has been compared with the files; `limits` are those of checks that have not their own."""
        self.batch_id = manifest.batch_id
        self._outputs = outputs
        self._limits = limits
        self.reviews = Reviews(outputs.root, manifest.batch_id)
        self.reviews.refresh()
        if self.reviews.sample is None:
            self.reviews.take_over(reused_takes(manifest, record))
            self.reviews.note_sample(draw_sample(manifest, record))
        self.takes = {take.line.segment: take for take in choose_takes(manifest, record, self.reviews)}
        self.spoken_again = len(spoken_again(record))
        """Segments that it has had spoken again, whichever of their takes has stayed."""
        self._references = {speaker.id: speaker.reference for speaker in manifest.speakers}
        rows = {row.digest: row for row in self._references_to_hear()}
        self._rows = rows
        references = (Reviewed(None, digest) for digest in rows)
        takes = (take.item for take in self.takes.values())
        pending = [item for item in takes if not self.reviews.has(item)]
        new_references = (item for item in references if not self.reviews.has(item))
        self._pending = deque(chain(new_references, pending) if pending else ())
        self._judge: Judge | None = None
        """It has learnt from the noted reviews that are counted; None if the next window makes it, from all notes."""
        self.reviewed = 0
        """Takes that are reviewed, or given up."""
        self._counted = 0
        """Of the noted reviews, so many are counted in `reviewed`."""
        self._count_noted()
        self.chunks = len(manifest.chunks)
        self.number = -1
        """Number of the round whose window was the last."""

    @property
    def is_pending(self) -> bool:
        """Whether some of it is left to be sent to the reviewers."""
        return bool(self._pending)

    def window(self, number: int) -> list[ReviewRequest]:
        """What round `number` sends to the reviewers, noted; empty if all is reviewed."""
        items: list[Reviewed] = []
        requests: list[ReviewRequest] = []
        seconds = 0.0
        while self._pending and len(items) < MOST_REVIEWS and seconds < WINDOW_S:
            item = self._pending[0]
            if self.reviews.has(item):  # an earlier process has sent it
                self._pending.popleft()
                continue
            if items and items[-1].segment is None and item.segment is not None:
                break  # takes are judged by what is heard in the references
            self._pending.popleft()
            try:
                request, length_s = self._request(item)
            except Unreadable as error:
                self._give_up(number, item, str(error))
                continue
            seconds += length_s
            items.append(item)
            requests.append(request)
        if items:
            self.reviews.note_sent(number, items)
        self._count_noted()
        self.number = number
        return requests

    def collect(self, number: int, answers: Sequence[ReviewAnswer | None]) -> None:
        """Judge and note what the reviewers have answered to round `number`, in the order in which it was sent. What
        has no answer, or cannot be heard, is sent again, unless it was sent `MOST_SENT` times.

        First, learn what other processes have noted of windows that they have sent since this one's last."""
        self.reviews.refresh()
        for found in self._count_noted():
            if self._judge and self.reviews.first[found.segment] is found:
                self._judge.learn(found.speaker, found.likeness, found.naturalness)
        takes: list[tuple[ChosenTake, ReviewAnswer]] = []
        heard: list[tuple[str, ReviewAnswer]] = []
        unanswered: list[Reviewed] = []
        for item, answer in zip(self.reviews.sent(number), answers, strict=False):
            take = None if item.segment is None else self.takes.get(item.segment)
            if self.reviews.has(item) or (item.segment is not None and (take is None or take.item != item)):
                continue  # answered before, or the segment has another file by now
            may_be_sent_again = self.reviews.unanswered(item, but=number) + 1 < MOST_SENT
            if answer is None or (answer.error and may_be_sent_again):
                unanswered.append(item)
            elif take is None:
                heard.append((item.digest, answer))
            else:
                takes.append((take, answer))
        judge = self._judge or (self._learnt_judge() if takes else None)  # a window before had the references
        self._judge = None  # where this fails, on the disk, another try learns from what is noted
        self.reviews.note_answers(number, self._judge_takes(judge, takes) if judge else [], heard, unanswered)
        self._judge = judge
        noted = [*(take.item for take, _ in takes), *(Reviewed(None, digest) for digest, _ in heard)]
        for item in noted:
            if not self.reviews.has(item):
                self._give_up(number, item, UNREADABLE)
        for item in unanswered:
            if self.reviews.unanswered(item) >= MOST_SENT:
                self._give_up(number, item, UNANSWERED)
            elif item not in self._pending:
                self._pending.appendleft(item)
        self._count_noted()

    def _count_noted(self) -> list[TakeReview]:
        """Count the reviews that were noted since the last call; returns them, in order."""
        noted = self.reviews.takes.values()
        new = [*islice(reversed(noted), len(noted) - self._counted)][::-1]
        self._counted = len(noted)
        self.reviewed += sum(
            (take := self.takes.get(found.segment)) is not None and take.line.digest == found.digest for found in new
        )
        return new

    @property
    def present(self) -> dict[int, TakeReview]:
        """What is said of the segments' takes as they are; those that were not reviewed are left out, but those that
        replace a take which failed count as failing what that one failed."""
        return {segment: review for segment, take in self.takes.items() if (review := self._review_of(take))}

    def _review_of(self, take: ChosenTake) -> TakeReview | None:
        found, rejected = self.reviews.takes.get(take.item), self.reviews.rejected_before(take.item)
        if rejected is None:
            return found
        return replace(self._unreviewed(take, found.error if found else REVIEW_ENDED), failed=rejected.failed)

    @property
    def failed(self) -> list[int]:
        """The segments that are to be spoken again: their takes fail, or replace one that failed and fail a check."""
        return [
            segment
            for segment, review in self.present.items()
            if review.failed or (segment in self.reviews.rejected and self.takes[segment].line.is_suspect)
        ]

    def replace(self, line: SegmentResult) -> None:
        """A segment has another take."""
        self.takes[line.segment] = self.takes[line.segment]._replace(line=line)

    def _references_to_hear(self) -> Iterator[ReferenceRow]:
        """The recordings of the speakers whose takes are reviewed, then some of the others."""
        if not self.takes:
            return
        own = {take.line.speaker for take in self.takes.values()}
        speakers = sorted(self._references, key=lambda speaker: speaker not in own)
        rows = [row for speaker in speakers if (row := self._references[speaker]).kind is ReferenceKind.AUDIO]
        needed = sum(self._references[speaker].kind is ReferenceKind.AUDIO for speaker in own)
        yield from rows[: max(needed, MOST_REFERENCES)]

    def _request(self, item: Reviewed) -> tuple[ReviewRequest, float]:
        """The request, and the seconds of its audio. Raises `Unreadable`."""
        if item.segment is None:
            return reference_request(self.batch_id, self._rows[item.digest], self._outputs.root)
        take = self.takes[item.segment]
        return take_request(self.batch_id, take.line, take.text, take.language, self._outputs)

    def _give_up(self, number: int, item: Reviewed, reason: str) -> None:
        what = "a reference" if item.segment is None else f"segment {item.segment}"
        log_event(Event.TAKE_NOT_REVIEWED, batch=self.batch_id, what=what, error=reason)
        if item.segment is None:
            self.reviews.note_answers(number, (), [(item.digest, ReviewAnswer(error=reason))], ())
        else:
            self.reviews.note_answers(number, [self._unreviewed(self.takes[item.segment], reason)], (), ())

    def _unreviewed(self, take: ChosenTake, reason: str) -> TakeReview:
        line = take.line
        is_suspect = line.is_suspect
        return TakeReview(line.segment, line.digest, line.speaker, {}, line.take, suspect=is_suspect, error=reason)

    def _judge_takes(self, judge: Judge, takes: Sequence[tuple[ChosenTake, ReviewAnswer]]) -> list[TakeReview]:
        """Judge the takes of a window, by what is usual for their speakers in that window and before."""
        heard = [Heard.of_answer(answer) for _, answer in takes]
        likeness = [judge.likeness(take.line.speaker, one) for (take, _), one in zip(takes, heard, strict=True)]
        for (take, _), one, like in zip(takes, heard, likeness, strict=True):
            # Other takes than the first are of segments that have failed.
            if take.line.segment not in self.reviews.first:
                judge.learn(take.line.speaker, like.own if like else None, one.naturalness)
        return [
            self._judge_take(judge, take, answer, one, like)
            for (take, answer), one, like in zip(takes, heard, likeness, strict=True)
        ]

    def _judge_take(
        self, judge: Judge, take: ChosenTake, answer: ReviewAnswer, heard: Heard, likeness: Likeness | None
    ) -> TakeReview:
        line = take.line
        if answer.error:
            what = f"segment {line.segment}"
            log_event(Event.TAKE_NOT_REVIEWED, batch=self.batch_id, what=what, error=answer.error)
            return self._unreviewed(take, answer.error)
        verdict = judge.judge(line.speaker, heard, likeness)
        if verdict.failed:
            reason = "; ".join(verdict.sentences)
            log_event(Event.TAKE_FAILED, segment=line.segment, speaker=line.speaker, reason=reason)
        return TakeReview(
            segment=line.segment,
            digest=line.digest,
            speaker=line.speaker,
            failed={name: verdict.scores[name] for name in verdict.failed},
            take=line.take,
            suspicion=verdict.suspicion,
            likeness=likeness.own if likeness else None,
            naturalness=heard.naturalness,
            suspect=line.is_suspect,
            words=_words(heard, line),
            language=take.language,
        )

    def _learnt_judge(self) -> Judge:
        """A judge that knows the references, and what earlier processes have found in takes."""
        heard: Mapping[str, Heard] = {
            speaker: Heard.of_answer(answer)
            for speaker, row in self._references.items()
            if (answer := self.reviews.references.get(row.digest)) and not answer.error
        }
        judge = Judge(heard, self._limits)
        for review in self.reviews.first.values():
            judge.learn(review.speaker, review.likeness, review.naturalness)
        return judge


def _words(heard: Heard, line: SegmentResult) -> Words:
    """What became of the words that are heard in a take."""
    if heard.words:
        return "compared" if line.audio_s <= LONGEST_S else "beginning"
    return "unknown_language" if heard.unknown_language else ""
