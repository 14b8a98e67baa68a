"""A batch whose chunks are finished, and its review, without processes: the test says what the reviewers answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cloner.audio import SAMPLE_RATE
from cloner.batch import Generation, Review
from cloner.collector.batch_review import BatchReview
from cloner.collector.spoken_again import SpokenAgain
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import Journal
from cloner.output.kept_batch import KeptBatch
from cloner.output.record import Record, RecordWriter
from cloner.output.redo import NotedTake, noted_takes
from cloner.output.takes import Takes
from cloner.output.verify import withdraw_changed
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ChunkRow, Manifest, SpeakerSliceRow
from cloner.protocol.results import SegmentResult
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.state.progress import ChunkProgress, Round
from tests.support.closed_batches import WORKER, Change, close_batch
from tests.support.speech import speech
from tests.support.stub_reviewer import GOOD

BATCH_ID = "20261127-040000-abcdef"

Answers = Callable[[ReviewRequest], ReviewAnswer | None]


class FinishedBatch:
    """A batch of one speaker with `count` segments; one chunk has them all."""

    def __init__(
        self, out: Path, count: int, review: Review, attempts: int = 3, change: Change = lambda line: line
    ) -> None:
        self.outputs = OutputRoot(out)
        texts = {"anna": [f"Text {number}." for number in range(count)]}
        _, record = close_batch(out, texts, batch_id=BATCH_ID, change=change)
        head = KeptBatch(record.folder).part(lambda _: True)
        row = SpeakerSliceRow(speaker=0, start=0, stop=count, position=1, texts=count)
        chunk = ChunkRow(number=7, queue="q", assignment=0, speakers=1, texts=count, slices=[row])
        self.manifest: Manifest = head.model_copy(
            update={"chunks": [chunk], "review": review, "generation": Generation(attempts=attempts)}
        )

    def speak_in(self, language: str, others: Mapping[int, str]) -> None:
        """Let its texts be of a language, and some, by their segments, of others."""
        changes = {"language": language, "other_languages": list(others.items())}
        speaker = self.manifest.speakers[0].model_copy(update=changes)
        self.manifest = self.manifest.model_copy(update={"speakers": [speaker]})

    def record(self) -> Record:
        """As the collector reads it at the end of a round."""
        record = Record(self.outputs.root, BATCH_ID, with_keys=False)
        record.refresh()
        withdraw_changed(record, self.outputs)
        return record

    def review(self, record: Record | None = None) -> BatchReview:
        """As a process knows it that has just started."""
        return BatchReview(self.manifest, record or self.record(), self.outputs, {})

    def speak(
        self, segment: int, take: int, replaced: str, suspicion: float = 0.0, dies: bool = False
    ) -> SegmentResult:
        """Another take of a segment, as a worker writes it; one that `dies` does so before it can write the line."""
        record = self.record()
        line = record.results[segment]
        row = self.manifest.speakers[0].segments[segment]
        key = ContentKeys(self.manifest.speech).of(self.manifest.speakers[0], row)
        Takes(self.outputs, BATCH_ID).keep_replaced(line.output, key, replaced)
        self.outputs.remove(line.output)
        written = self.outputs.write_audio(line.output, speech(SAMPLE_RATE, 6, seed=1000 * take + segment), SAMPLE_RATE)
        line = replace(
            line,
            take=take,
            key=key,
            size=written.size,
            mtime_ns=written.mtime_ns,
            digest=written.digest,
            suspicion=suspicion,
        )
        if dies:
            journal = Journal(self.outputs.root, BATCH_ID, 7, WORKER)
            journal.begin(self.outputs.part, 0)
            journal.publishes(line.digest)
        else:
            with RecordWriter(record, WORKER) as lines:
                lines.append(line)
        return line


def run_windows(review: BatchReview, answer: Answers, number: int = 1, most: int = 100) -> list[list[str]]:
    """Send and answer at most so many windows; returns what each has sent."""
    sent: list[list[str]] = []
    while len(sent) < most and (requests := review.window(number)):
        sent.append([request.what for request in requests])
        review.collect(number, [answer(request) for request in requests])
        number += 1
    return sent


def answers(by_what: Mapping[str, ReviewAnswer], others: ReviewAnswer) -> Answers:
    """Answers by "segment.take"."""
    return lambda request: by_what.get(request.what, others)


class ReviewEnd:
    """The end of a review: what is spoken again."""

    def __init__(self, batch: FinishedBatch, number: int, by_what: dict[str, ReviewAnswer]) -> None:
        self.batch = batch
        self.record: Record = batch.record()
        self.review: BatchReview = batch.review(self.record)
        self.number = number + len(run_windows(self.review, answers(by_what, GOOD), number))
        self.again = SpokenAgain(self.review, batch.manifest, self.record, batch.outputs)

    def next_round(self, reported: ChunkProgress | None = None) -> Round | None:
        self.again.keep_better()
        following, _ = self.again.next_round(Round(self.number), {7: reported or ChunkProgress()})
        return following

    def noted(self) -> list[NotedTake]:
        return list(noted_takes(self.batch.outputs, BATCH_ID))
