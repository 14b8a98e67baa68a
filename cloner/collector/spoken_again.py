"""Takes that fail the review are spoken again, as other takes of the same batch, and the better one stays.

A take that replaces another keeps its file, as with `cloner redo` (`output/redo.py`): nothing is lost where the process
dies, and where the other take is worse, the file gets its name again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from cloner.batch import Redo, take_seed
from cloner.collector.batch_review import BatchReview
from cloner.collector.rounds import recorded, segments_of
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record, RecordWriter, batch_folder, translate_disk_errors
from cloner.output.redo import REDO, NotedTake, note_takes, noted_takes
from cloner.output.reviews import Reviewed, larger_suspicion
from cloner.output.takes import Takes
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult, most_attempts
from cloner.protocol.rows import SegmentRow, TakeRow
from cloner.state.progress import ChunkProgress, Round

REVIEW_LINES = "review"
"""Name of the record's file with the lines of takes that were given their names again. No worker has it."""


class SpokenAgain:
    """What is spoken again of a batch, all of whose takes are reviewed. Methods raise `RecordFailed`."""

    def __init__(self, review: BatchReview, manifest: Manifest, record: Record, outputs: OutputRoot) -> None:
        """The manifest's texts are not needed: the review has those of its takes."""
        self._review = review
        self._manifest = manifest
        self._record = record
        self._outputs = outputs
        self._folder = batch_folder(outputs.root, manifest.batch_id)
        self.count = 0
        """Segments of the round that `next_round` returns."""
        self.repeated = 0
        """Those of them that an earlier round has spoken again."""
        keys = ContentKeys(manifest.speech)
        failed = set(review.failed)
        rows = (
            (speaker, row._replace(text=review.takes[row.segment].text))
            for speaker in manifest.speakers
            for row in speaker.segments
            if row.segment in failed
        )
        self._rows = {row.segment: (row, keys.of(speaker, row)) for speaker, row in rows}

    def keep_better(self) -> None:
        """Give earlier takes their names again that are better than those which were to replace them."""
        takes = Takes(self._outputs, self._manifest.batch_id)
        for segment, (row, key) in self._rows.items():
            present = self._record.results[segment]
            best = self._best(segment, present)
            if best.digest != present.digest:
                with translate_disk_errors(self._folder.path):
                    takes.restore(row.output, key, best.digest, present.digest)
                if not self._outputs.has_result(best):
                    continue
                present = best
                self._review.replace(present)
            self._record.choose(self._as_last(present, row, key))

    def _best(self, segment: int, present: SegmentResult) -> SegmentResult:
        """The line of a segment's best take that was reviewed; that of the present one if it was not, and the checks do
        not find it worse."""
        lines = [line for line in self._record.generated_lines(segment) if self._suspicion(line) is not None]
        best = min(lines, key=lambda line: (self._suspicion(line), line is not present), default=present)
        is_unheard = self._suspicion(present) is None
        return present if is_unheard and present.suspicion <= best.suspicion else best

    def _as_last(self, present: SegmentResult, row: SegmentRow, key: str) -> SegmentResult:
        """The line of a segment's present take, which is the last one in the record: else other batches would take the
        worse one for the segment's audio."""
        last = max(self._record.generated_lines(present.segment), key=lambda line: line.take)
        if last.digest == present.digest:
            return last
        line = replace(present, key=key, take=last.take + 1, seed=present.seed if present.take > 1 else row.seed)
        with RecordWriter(self._record, REVIEW_LINES) as lines:
            lines.append(line)
        return line

    def next_round(
        self, ended: Round, reported: Mapping[int, ChunkProgress]
    ) -> tuple[Round | None, dict[int, ChunkProgress]]:
        """The round that speaks again what fails and has attempts left, noted; None if nothing does. Besides, the
        progress of its chunks."""
        number = ended.number + 1
        with translate_disk_errors(self._folder.path):
            earlier = [*noted_takes(self._outputs, self._manifest.batch_id)] if self._folder.files(REDO) else []
        noted = [take for take in earlier if take.round == number]  # by a process that has died
        if not noted:
            noted = [*self._next_takes(number, earlier, reported)]
            if not noted:
                return None, {}
            with translate_disk_errors(self._folder.path):
                note_takes(self._folder, [*earlier, *noted])
        again = {take.row.segment for take in noted}
        progress = {
            chunk.number: recorded(self._manifest, chunk, self._record, again)
            for chunk in self._manifest.chunks
            if not again.isdisjoint(segments_of(self._manifest, chunk))
        }
        self.count = len(again)
        self.repeated = len(again & {take.row.segment for take in earlier if 0 < take.round < number})
        return Round(number, tuple(progress), ended.missing, ended.fruitless, again=True), progress

    def _next_takes(
        self, number: int, earlier: list[NotedTake], reported: Mapping[int, ChunkProgress]
    ) -> Iterator[NotedTake]:
        unable = {
            index
            for chunk in self._manifest.chunks
            if (known := reported.get(chunk.number)) and known.is_ended_for_good
            for index in segments_of(self._manifest, chunk)
        }
        spoken_again = Counter(take.row.segment for take in earlier if take.round)
        last: dict[int, int] = {}
        for take in earlier:
            last[take.row.segment] = max(last.get(take.row.segment, 0), take.row.number)
        for segment, (row, key) in self._rows.items():
            lines = self._record.generated_lines(segment)
            if segment in unable or attempts_of(lines) + spoken_again[segment] >= self._manifest.generation.attempts:
                continue
            take_number = 1 + max(last.get(segment, 0), *(line.take for line in lines))
            seed = take_seed(row.seed, take_number, Redo())
            digest = self._record.results[segment].digest
            yield NotedTake(TakeRow(segment, take_number, seed, digest), row.output, key, number)

    def _suspicion(self, line: SegmentResult) -> float | None:
        """The larger one of the checks' and the review's; None if the take was not reviewed."""
        found = self._review.reviews.takes.get(Reviewed(line.segment, line.digest))
        return None if found is None or found.error else larger_suspicion(line, found)


def attempts_of(lines: list[SegmentResult]) -> int:
    """The attempts that a segment's first take had, at most at one of its pieces; and its takes in earlier batches."""
    return most_attempts(lines) + min((line.take - 1 for line in lines if line.reused), default=0)
