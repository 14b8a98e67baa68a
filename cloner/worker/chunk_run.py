"""One run of a chunk: find the pending segments, have the engine generate them, record the results."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import NamedTuple

from redis import RedisError

from cloner.batch import SpeechOptions
from cloner.engine.base import SpeechResult
from cloner.errors import EngineBroken, RecordFailed, reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.journal import Journal
from cloner.output.record import Record
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import SegmentResult
from cloner.state.progress import ChunkProgress
from cloner.text.length import is_speakable, is_split
from cloner.worker.attempts import Attempts
from cloner.worker.cancellation import Cancellation
from cloner.worker.chunk_monitor import ChunkMonitor
from cloner.worker.chunk_report import ChunkReport
from cloner.worker.chunk_results import ChunkResults
from cloner.worker.crash_plan import Turn
from cloner.worker.crash_recovery import CRASHED, HOPELESS, CrashRecovery
from cloner.worker.disk_wait import DiskWait
from cloner.worker.encoding import Encoder
from cloner.worker.output_flush import OutputFlush
from cloner.worker.pending import PendingSegment, by_speaker, speech_requests, split_by_record
from cloner.worker.pieces import joinable_groups, speak_in_pieces
from cloner.worker.progress_log import ProgressLog
from cloner.worker.result_writer import ResultWriter
from cloner.worker.voice_loader import VoiceLoader, fetch_codes
from cloner.worker.worker_process import WorkerProcess

SILENT = "its text has no letter and no digit, so there is nothing to speak"

UNWRITTEN = "an earlier segment of its chunk could not be written for as long as CLONER_DISK_WAIT_S"
"""Why segments fail that the engine was not asked for."""


def run_chunk(worker: WorkerProcess, message: ChunkMessage) -> ChunkProgress:
    """Generate the segments of a chunk that the record does not have; returns the counts of the whole chunk.

    Does nothing if the batch is closed: the message was delivered again after a crash, and its files may be another
    batch's by now. Raises, with nothing lost, `EngineBroken` if this process should end, `WorkerBroken` if the whole
    worker should, and `PassedOn` if another worker should take the chunk.
    """
    if worker.batches.is_done(message.batch_id):
        return ChunkProgress()
    worker.registry.set_busy(worker.name)
    cancelled = worker.batches.is_cancelled(message.batch_id)
    references = fetch_codes(worker, message)
    report = ChunkReport(worker, message)
    assignment = f"{message.batch_id}/{message.assignment}"
    try:
        worker.log_assignment(assignment, message.speakers, message.texts)
        try:
            with Cancellation(worker, message.batch_id, cancelled=cancelled) as cancellation:
                disk = DiskWait(worker, cancellation)
                there = disk.retry(lambda: _read(worker, message))
                worker.journal = there.journal
                for result in there.finished:
                    report.progress.add(result)
                run = ChunkRun(worker, message, there, report, references, cancellation=cancellation, disk=disk)
                is_assignment_finished = run.run()
            if is_assignment_finished:
                worker.forget_assignment(assignment)
        except RecordFailed as error:
            # A segment without a line in the record counts as not generated; the batch's result lists each.
            log_event(Event.FAILED, error=error.message)
            report.progress.error = error.message
        report.progress.finished = True
    except BaseException:
        # An outage must not hide the error: the chunk would run again in this process, which may be broken.
        with suppress(RedisError):
            report.end()
        raise
    report.end()
    return report.progress


class _OnDisk(NamedTuple):
    """What the disk has of a chunk before a run."""

    record: Record
    finished: list[SegmentResult]
    pending: dict[int, PendingSegment]
    """The segments that are left, by their indexes."""
    journal: Journal


def _read(worker: WorkerProcess, message: ChunkMessage) -> _OnDisk:
    """What the disk has of a chunk. Raises `RecordFailed`."""
    record = worker.record(message.batch_id, message.assignment)
    options = SpeechOptions(
        generation=message.generation, audio=message.audio, engine=worker.engine.name, fingerprint=worker.fingerprint
    )
    finished, pending = split_by_record(message, record, worker.outputs, ContentKeys(options))
    journal = Journal(worker.outputs.root, message.batch_id, message.number, worker.name)
    return _OnDisk(record, finished, pending, journal)


class ChunkRun:
    """One run of a chunk, with all that it works with. Raises `RecordFailed`, and what `run_chunk` raises.

    `references` are references whose bytes are here already, by digest.
    """

    def __init__(  # noqa: PLR0913 - what is there before the run
        self,
        worker: WorkerProcess,
        message: ChunkMessage,
        there: _OnDisk,
        report: ChunkReport,
        references: dict[str, bytes],
        *,
        cancellation: Cancellation,
        disk: DiskWait,
    ) -> None:
        self._worker = worker
        self._message = message
        self._report = report
        self._record = record = there.record
        self._pending = there.pending
        self._journal = there.journal
        self._log = ProgressLog(worker, message, record)
        self._cancellation = cancellation
        self._disk = disk
        self._monitor = ChunkMonitor(worker, message, cancellation, self._journal, self._log)
        self._encoder = Encoder(worker, message.audio, self._monitor, cancellation)
        self._flush = OutputFlush(worker.outputs.root)
        self._attempts = Attempts(worker, message, self._journal)
        self._writer = ResultWriter(worker, message, record, self._journal, disk, self._flush, self._attempts)
        self._results = ChunkResults(self._pending, self._writer, self._log, report, disk)
        self._recovery = CrashRecovery(worker, message, self._journal)
        self._voices = VoiceLoader(worker, references)

    def run(self) -> bool:
        """Generate the pending segments; returns whether nothing is left to do of the assignment."""
        try:
            with self._journal, self._flush, self._writer, self._encoder, self._attempts:
                if self._pending and not self._cancellation.stopped():
                    self._generate()
                self._recovery.discard_own_files()
                if self._pending and self._has_files_without_lines():  # the batch is cancelled
                    self._journal.keep()
                else:
                    self._disk.retry(self._journal.remove)
        except RecordFailed:
            # The chunk ends here, too, whatever is missing. Its journal stays until the batch is closed: it has the
            # digests of files without a line.
            self._recovery.discard_own_files()
            raise
        return self._disk.retry(self._log.assignment_finished) or self._cancellation.stopped()

    def _has_files_without_lines(self) -> bool:
        """Whether earlier runs died between a file and its line."""
        digests = {digest for run in self._journal.runs for digest in run.digests}
        return bool(digests - {line.digest for line in self._record.results.values()})

    def _generate(self) -> None:
        """Generate the segments that were in flight at a crash one by one, the others together."""
        generated = self._report.progress.generated
        self._recovery.discard_unfinished_files()
        silent = [segment.index for segment in self._pending.values() if not is_speakable(segment.text)]
        self._results.fail(silent, "nothing_to_speak", SILENT)
        plan = self._recovery.plan(self._pending, generated)
        self._report.suspect(self._recovery.unable_workers(generated))
        self._results.fail(plan.crashed, "crashed", CRASHED)
        if plan.needs_second_opinion:
            self._recovery.pass_on()
        if plan.is_hopeless:
            number, batch_id = self._message.number, self._message.batch_id
            log_event(Event.CHUNK_GIVEN_UP, chunk=number, batch=batch_id, error=HOPELESS)
            self._results.fail(list(self._pending), "engine_failed", HOPELESS)
            return
        self._worker.note_environment()
        self._disk.retry(lambda: self._journal.begin(self._worker.outputs.part, generated))
        self._report.begin_run(1 + len(self._journal.runs))
        for turn in plan.turns:
            self._run_turn(turn)
            if self._is_over():
                break
        if self._disk.failure:
            self._results.fail(self._pending, "output", f"{UNWRITTEN}: {self._disk.failure}")

    def _run_turn(self, turn: Turn) -> None:
        """Have the engine generate the segments of a turn."""
        self._monitor.alone = turn.alone
        for segments in joinable_groups(turn.segments, self._pending, self._message.generation):
            self._run_together(segments)
            if self._is_over():
                return

    def _run_together(self, segments: Sequence[int]) -> None:
        """Have the engine generate some segments. Raises `EngineBroken` if it leaves any out."""
        groups = self._with_voices(by_speaker(segments, self._pending))
        with closing(self._answers(groups)) as answers:
            for answer, encoding in self._encoder.encoded(answers, self._pending):
                # After a cancellation, the file may be another batch's.
                if self._is_over():
                    return
                self._results.add(answer, encoding)
                self._monitor.written(answer.segment)
        unanswered = self._pending.keys() & set(segments)
        if unanswered and not self._is_over():
            raise EngineBroken(f"the engine broke: it gave {len(unanswered)} segments no answer")

    def _is_over(self) -> bool:
        """Whether no more results are wanted: the batch is cancelled, or they cannot be written."""
        return self._cancellation.stopped() or bool(self._disk.failure)

    def _with_voices(self, groups: Sequence[list[PendingSegment]]) -> list[list[PendingSegment]]:
        """The speakers whose references can be used; the segments of the others are failed. Ends early if cancelled."""
        usable = []
        references = [group[0].speaker.reference for group in groups]
        for place, group in enumerate(groups):
            if self._cancellation.stopped():
                return []
            with _as_engine_error():
                error = self._voices.prepare(references[place:])
            if error:
                self._results.fail([segment.index for segment in group], error.code, error.message)
            else:
                usable.append(group)
        return usable

    def _answers(self, groups: Sequence[list[PendingSegment]]) -> Generator[SpeechResult | None, None, None]:
        """The engine's answers, and None where it is woken. Raises `EngineBroken`."""
        generation = self._message.generation
        requests = speech_requests(groups, generation, self._voices.get, self._cancellation.stopped)
        engine = self._worker.engine
        is_checked = engine.trained if generation.checks is None else generation.checks
        speak = self._attempts.speak if is_checked else engine.speak
        if any(is_split(segment.text, generation) for group in groups for segment in group):
            speak = partial(speak_in_pieces, speak)
        with _as_engine_error(), closing(speak(requests, self._monitor)) as answers:
            yield from answers


@contextmanager
def _as_engine_error() -> Iterator[None]:
    """Turn any error of an engine into `EngineBroken`: a fresh process may do better."""
    try:
        yield
    except (EngineBroken, RedisError):
        raise
    except Exception as error:
        raise EngineBroken(f"the engine broke: {reason_of(error)}") from error
