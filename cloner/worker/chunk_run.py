"""Speaking one chunk: draw its lines, write what comes back, say how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, suppress
from typing import NoReturn

from redis import RedisError

from cloner.batch import ReferenceKind, segment_seed
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechRequest, SpeechResult
from cloner.errors import BadReference, EngineBroken, RecordFailed, WorkerBroken, reason_of
from cloner.logs import get_logger
from cloner.output.audio_files import codes_part
from cloner.output.journal import Journal
from cloner.protocol.content_key import Keys
from cloner.protocol.messages import ChunkMessage, SegmentRow, SpeakerPart
from cloner.protocol.results import SegmentResult
from cloner.state.batches import ChunkProgress
from cloner.state.registry import WorkerInfo
from cloner.worker.chunk_log import ChunkLog
from cloner.worker.chunk_watch import ChunkWatch
from cloner.worker.crash_plan import DEATHS, LONE_CRASHES, plan_after_crashes
from cloner.worker.outbox import Outbox
from cloner.worker.runtime import Runtime
from cloner.worker.voices import Voices

REPORT_S = 0.25
"""Seconds between two reports of a chunk's progress."""

CRASHED = (
    f"the worker's process died {LONE_CRASHES} times while it spoke this segment and no other: change its text, or look"
    " into the worker's log for what happened"
)

HOPELESS = (
    f"the worker's process died {DEATHS} times without a segment generated in between: look into the worker's log for"
    " what happened, and submit the batch again"
)


USELESS = (
    "it could speak nothing of two chunks in a row, and another worker could speak the first: look at its card, and"
    " into its log for what happened"
)


class PassedOn(Exception):
    """The chunk is left to another worker, in its own queue."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue


class ChunkRun:
    """One run of a chunk. A second run, after a crash, speaks only what the record does not have.

    Raises, with nothing lost, `EngineBroken` where the process should end, `WorkerBroken` where the whole worker
    should, and `PassedOn`.
    """

    def __init__(self, runtime: Runtime, message: ChunkMessage) -> None:
        self._runtime = runtime
        self._message = message
        self._tally = ChunkProgress()
        self._spoken_s = 0.0
        self._keys = Keys(message.generation, runtime.engine.name, runtime.fingerprint)
        self._todo: dict[int, tuple[SpeakerPart, SegmentRow, str]] = {}
        self._unable: set[str] = set()
        """Workers whose processes died again and again before they had generated any of what is left."""
        self._codes: dict[str, bytes] = {}

    def is_too_late(self) -> bool:
        """Whether the batch is closed and its message came again, after a crash. Its files may be another's by now."""
        return self._runtime.batches.is_done(self._message.batch_id)

    def run(self) -> ChunkProgress:
        """Speak all that is not finished yet."""
        self._begin()
        try:
            self._run()
            self._tally.finished = True
        finally:
            self._end()
        return self._tally

    def _run(self) -> None:
        message, runtime = self._message, self._runtime
        assignment = f"{message.batch_id}/{message.assignment}"
        runtime.say_assignment(assignment, message.speakers, message.texts, message.shared)
        try:
            self._record = runtime.record(message.batch_id)
            self._log = ChunkLog(runtime, message, self._record)
            self._journal = runtime.in_hand = Journal(
                runtime.outputs.root, message.batch_id, message.number, runtime.name
            )
            self._watch = ChunkWatch(runtime, message.batch_id, self._journal)
            self._outbox = Outbox(runtime, self._record, self._watch)
            with self._journal, self._watch:
                if self._cancelled:
                    self._watch.stop()
                with self._outbox.open() as self._writer:
                    self._speak()
            if self._log.all_done() or self._watch.stopped():
                runtime.forget_assignment(assignment)
        except RecordFailed as error:
            # A segment without its line counts as not spoken; the result says so of each.
            get_logger().error(error.message)

    def _speak(self) -> None:
        """Speak what is not finished: what was in hand at a crash one by one, the others together."""
        for part in self._message.parts:
            for row, key in self._unfinished(part):
                self._todo[row[0]] = (part, row, key)
        if not self._todo or self._watch.stopped():
            return
        dead = self._journal.dead
        for run in self._journal.runs:  # one that was told to stop may have been killed, too
            for name in (run.part, codes_part(run.part)):
                self._runtime.outputs.discard(name)
        speakers = {segment: part.id for segment, (part, _, _) in self._todo.items()}
        others = self._runtime.others() if dead else []
        verdict = plan_after_crashes(dead, speakers, self._tally.generated, self._runtime.name, has_others=bool(others))
        died = Counter(run.worker for run in dead if run.generated == self._tally.generated)
        self._unable = {name for name, times in died.items() if times >= LONE_CRASHES - 1} - {self._runtime.name}
        self._fail(verdict.crashed, "crashed", CRASHED)
        if verdict.needs_second_opinion:
            self._pass_on(others[0])
        if verdict.is_hopeless:
            get_logger().error(
                f"Chunk {self._message.number} of batch {self._message.batch_id} is given up: {HOPELESS}"
            )
            self._fail(list(self._todo), "engine_failed", HOPELESS)
            return
        self._outbox.patiently(lambda: self._journal.begin(self._runtime.outputs.part, self._tally.generated))
        for turn in verdict.turns:
            self._watch.alone = turn.alone
            with closing(self._answers(set(turn.segments))) as answers:
                for answer in answers:
                    # Its file may be another batch's by now.
                    if self._watch.stopped():
                        return
                    self._take(answer)
            if self._watch.stopped():
                return
            if unanswered := self._todo.keys() & set(turn.segments):
                raise EngineBroken(f"the engine broke: it gave {len(unanswered)} segments no answer")

    def _pass_on(self, other: WorkerInfo) -> NoReturn:
        """Leave the chunk to another worker: the fault may be this one's. If another one could speak what this one
        passed on before, it is."""
        known = self._runtime.registry.get(self._runtime.name)
        if known and known.suspected_faulty:
            raise WorkerBroken(USELESS)
        get_logger().error(
            f"Chunk {self._message.number} of batch {self._message.batch_id} is passed on to {other.name}: the process"
            " died again and again here, whatever it spoke of it"
        )
        raise PassedOn(other.queue)

    def _answers(self, segments: Collection[int]) -> Generator[SpeechResult, None, None]:
        """What the engine says to these segments. Raises `EngineBroken`."""
        try:
            with closing(self._runtime.engine.speak(self._lines(segments), self._watch)) as answers:
                yield from answers
        except (RecordFailed, EngineBroken, RedisError):
            raise
        except Exception as error:
            # An engine may break in any way, and then one that is loaded anew may do better.
            raise EngineBroken(f"the engine broke: {reason_of(error)}") from error

    def _lines(self, segments: Collection[int]) -> Iterator[SpeechRequest]:
        """The lines of some segments; an engine may draw them one by one or all at once."""
        parts = [(part, todo) for part in self._message.parts if (todo := self._among(part, segments))]
        voices = Voices(self._runtime, [part.reference for part, _ in parts], self._codes)
        for part, todo in parts:
            if self._watch.stopped():
                return
            self._log.begin(part)
            try:
                voice = voices.get(part.reference)
            except BadReference as error:
                for row in todo:
                    self._take(SegmentFailure(row[0], error.code, error.message))
                continue
            for row in todo:
                if self._watch.stopped():
                    return
                seed = segment_seed(self._message.generation.seed, row[0])
                yield SpeechRequest(row[0], row[1], voice, self._message.generation, seed)

    def _among(self, part: SpeakerPart, segments: Collection[int]) -> list[SegmentRow]:
        return [row for row in part.segments if row[0] in segments and row[0] in self._todo]

    def _unfinished(self, part: SpeakerPart) -> Iterator[tuple[SegmentRow, str]]:
        """The part's segments that the record does not have, with their content keys. A failed one is finished, too."""
        for row in part.segments:
            key = self._keys.of(part.reference, row)
            known = self._record.results.get(row[0])
            if known and known.key == key and (not known.generated or self._runtime.outputs.has_result(known)):
                self._tally.add(known)
            else:
                yield row, key

    def _fail(self, segments: Collection[int], code: str, message: str) -> None:
        """Fail segments that no engine is asked to speak."""
        for segment in segments:
            self._log.begin(self._todo[segment][0])
            self._take(SegmentFailure(segment, code, message))

    def _take(self, answer: SegmentAudio | SegmentFailure) -> None:
        """Write what came of a segment, and say it."""
        part, row, key = self._todo.pop(answer.segment)
        index, _, output = row
        result = SegmentResult(
            segment=index,
            speaker=part.id,
            output=output,
            key=key,
            assignment=self._message.assignment,
            worker=self._runtime.name,
        )
        result = self._outbox.put(self._writer, result, answer)
        log = get_logger().bind(speaker=part.id, segment=index)
        if not result.generated:
            log.warning(f"❌ Segment {index} of Speaker {part.id} failed: {result.message}")
        elif result.truncated:
            log.warning(
                f"⚠ Segment {index} of Speaker {part.id} was cut after {result.frames} frames, the end of its text may "
                "be missing: split the text, or raise max_new_tokens"
            )
        self._spoken_s += result.audio_s
        self._runtime.meter.finished(result)
        self._tally.add(result)
        self._log.count(part)
        if time.monotonic() - self._reported > REPORT_S:
            self._report()

    def _begin(self) -> None:
        """Say that this worker is busy, see whether the batch was cancelled, fetch all codes (they are a few KB)."""
        runtime, message = self._runtime, self._message
        wanted = {part.reference.digest for part in message.parts if part.reference.kind is ReferenceKind.CODES}
        runtime.registry.set_busy(runtime.name)
        self._cancelled = runtime.batches.is_cancelled(message.batch_id)
        self._codes = runtime.references.get_all(wanted)
        self._began = self._reported = time.monotonic()

    def _end(self) -> None:
        """Say how far the chunk came, and that this worker is ready for the next."""
        runtime, message = self._runtime, self._message
        runtime.batches.report(message.batch_id, {message.number: self._tally})
        busy_s = time.monotonic() - self._began
        runtime.registry.finish_chunk(runtime.name, runtime.capacity(), self._spoken_s, busy_s)
        if self._spoken_s:
            for name in self._unable:
                if self._runtime.registry.get(name):
                    self._runtime.registry.update(name, suspected_faulty=f"{message.batch_id}/{message.number}")

    def _report(self) -> None:
        self._reported = time.monotonic()
        with suppress(RedisError):  # the next report, or the end, has all of it again
            self._runtime.batches.report(self._message.batch_id, {self._message.number: self._tally})
