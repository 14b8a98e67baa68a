"""Attempts: what the engine makes of a piece is checked, and made again with another seed where a check fails.

The next attempt goes to the engine while that generates the rest of the chunk. Checks run in threads of their own,
beside the one that decodes. An attempt that fails is on the disk and in the journal before the next is asked for, so a
crash repeats none.

What is usual for a speaker is learnt from the first attempt at each piece, unless that fails a check which does not
compare it. So scores depend on what this process has checked of the batch before, and differ in another order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Lock
from types import TracebackType

import soundfile

from cloner.audio import NOT_NUMBERS, SAMPLE_RATE
from cloner.audio_bytes import to_16_bits
from cloner.batch import attempt_seed
from cloner.checks.catalogue import NotANumber
from cloner.checks.check_set import CheckResult
from cloner.checks.measures import Take
from cloner.engine.base import (
    CODEC_FAILED,
    ChunkObserver,
    Engine,
    RequestQueue,
    SegmentAudio,
    SegmentFailure,
    SpeechRequest,
    SpeechResult,
)
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.attempts import AttemptFiles, attempt_file
from cloner.output.journal import FailedAttempt, Journal
from cloner.process import usable_cores
from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import Attempt
from cloner.worker.attempt_checks import AttemptChecks
from cloner.worker.audio_effects import as_float
from cloner.worker.checked_segment import CheckedSegment, Piece, rounded_up, seconds_of
from cloner.worker.worker_process import WorkerProcess

MOST_THREADS = 4
"""Threads that check: one checks more than 1,000 s of audio in a second."""


FAILED = {"generation_failed": {NotANumber.name: 100.0}, CODEC_FAILED: {CODEC_FAILED: 1.0}}
"""Codes of failures after which there may be another attempt, and what the one that failed has as its failed checks."""


class Attempts:
    """The attempts of one run of a chunk. A context manager around it."""

    def __init__(self, worker: WorkerProcess, message: ChunkMessage, journal: Journal) -> None:
        self._worker = worker
        self._journal = journal
        self._model = f"{worker.engine.name}:{worker.fingerprint}"
        self.most = message.generation.attempts
        self._fixed_length = message.generation.fixed_length
        self._speakers = {row.segment: speaker.id for speaker in message.slices for row in speaker.segments}
        self._checks = AttemptChecks(worker, message.batch_id)
        self._files = AttemptFiles(worker.outputs, message.batch_id, worker.name)
        self._lock = Lock()
        self._checked: defaultdict[int, CheckedSegment] = defaultdict(CheckedSegment)
        self._earlier = {
            (failed.segment, failed.attempt.piece, failed.attempt.seed): failed
            for run in journal.runs
            for failed in run.failed
            if failed.model == self._model
        }
        threads = min(MOST_THREADS, usable_cores(), worker.engine.slots)
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="checks")
        self.most_ahead = threads - 1

    def __enter__(self) -> Attempts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.threads.shutdown(cancel_futures=True)

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver
    ) -> Generator[SpeechResult | None, None, None]:
        """As `Engine.speak`, with the best of at most `attempts` attempts at each request."""
        return _Exchange(self, observer).speak(self._worker.engine, requests)

    def taken(self, segment: int) -> CheckedSegment:
        """What the checks say of a segment that is about to be written."""
        with self._lock:
            return self._checked.pop(segment, CheckedSegment())

    def written(self, checked: CheckedSegment) -> None:
        """Remove the files of attempts that are kept, once their segment has its audio and its line."""
        self._files.remove(attempt.file for attempt in checked.attempts if attempt.kept and attempt.file)

    def begin(self, request: SpeechRequest) -> Piece:
        """A piece with the failed attempts at it of earlier runs, as far as their files are there."""
        piece = Piece(request)
        while len(piece.attempts) < self.most:
            seed = attempt_seed(request.seed, len(piece.attempts) + 1)
            failed = self._earlier.get((piece.segment, piece.place, seed))
            samples = self._files.read(failed.attempt.file) if failed else None
            if failed is None or samples is None or seconds_of(samples) != failed.attempt.seconds:
                break  # a loss of power may have shortened it
            audio = SegmentAudio(request.segment, samples, failed.frames, failed.truncated)
            piece.add(failed.attempt, audio, failed.suspicion)
        return piece

    def check(self, piece: Piece, result: SegmentAudio) -> bool:
        """Check an attempt; returns whether it is the last that the piece needs."""
        number, speaker = len(piece.attempts) + 1, self._speakers[piece.segment]
        samples = as_float(result.audio)
        cut = result.truncated and not self._fixed_length
        take = Take(samples, SAMPLE_RATE, piece.request.text, result.codes, cut)
        verdict = self._checks.evaluate(take, speaker, piece.request.language, is_first=number == 1)
        self._worker.note_step()
        attempt = Attempt(
            piece=piece.place,
            number=number,
            seed=attempt_seed(piece.request.seed, number),
            seconds=seconds_of(samples),
            failed={name: verdict.scores[name] for name in verdict.failed},
            kept=False,
        )
        result = replace(result, codes=None)
        if verdict.failed:
            attempt = self._keep(piece, attempt, result, verdict)
        piece.add(attempt, result, rounded_up(verdict.suspicion))
        if verdict.failed and number < self.most:
            log_event(
                Event.ATTEMPT_FAILED,
                segment=piece.segment,
                speaker=speaker,
                number=number,
                attempts=self.most,
                reason="; ".join(verdict.sentences),
            )
            return False
        return True

    def note_failure(self, piece: Piece, failure: SegmentFailure) -> bool:
        """Note an attempt of which nothing can be heard, since the model's or the codec's output was no number, or the
        codec broke; returns whether there may be another. Any other failure is final."""
        failed = FAILED.get(failure.code)
        if failed is None:
            return False
        number = len(piece.attempts) + 1
        seed = attempt_seed(piece.request.seed, number)
        piece.attempts.append(Attempt(piece.place, number, seed, 0.0, failed, kept=False))
        return number < self.most

    def finish(self, piece: Piece) -> SpeechResult:
        """The best attempt at a piece, which has no other; a failure if it cannot be heard."""
        if piece.audio is None:
            raise RuntimeError("no attempt was made")
        attempts, best = list(piece.attempts), piece.attempts[piece.best]
        attempts[piece.best] = replace(best, kept=True)
        with self._lock:
            checked = self._checked[piece.segment]
            checked.suspicion = max(checked.suspicion, piece.suspicion)
            if any(attempt.failed for attempt in attempts):
                checked.attempts += attempts
        if NotANumber.name in best.failed:
            return SegmentFailure(piece.request.segment, "generation_failed", f"the codec's {NOT_NUMBERS}")
        return piece.audio

    def fail(self, piece: Piece, result: SpeechResult) -> SpeechResult:
        """The `result` of a piece of which nothing can be heard; its attempts are noted."""
        with self._lock:
            self._checked[piece.segment].attempts += piece.attempts
        return result

    def _keep(self, piece: Piece, attempt: Attempt, result: SegmentAudio, verdict: CheckResult) -> Attempt:
        """Write the audio of an attempt that failed, then note it in the journal; returns it with its file."""
        name = attempt_file(piece.segment, piece.place, attempt.number)
        try:
            self._files.write(name, to_16_bits(result.audio))
        except (OSError, soundfile.SoundFileError) as error:
            log_event(Event.ATTEMPT_NOT_KEPT, file=name, error=error)
            return attempt
        attempt = replace(attempt, file=name)
        suspicion = rounded_up(verdict.suspicion)
        self._journal.attempt_failed(
            FailedAttempt(piece.segment, attempt, result.frames, result.truncated, suspicion, self._model)
        )
        return attempt


class _Exchange:
    """What is asked of the engine at once, and what it answers; its observer meanwhile."""

    def __init__(self, attempts: Attempts, observer: ChunkObserver) -> None:
        self._attempts = attempts
        self._observer = observer
        self._pieces: dict[int, Piece] = {}
        self._ready: deque[SpeechResult] = deque()
        """The answers for pieces at which all attempts were made by earlier runs."""
        self._unanswered = 1
        """Requests without their last answer, and 1 until all are drawn."""
        self._lock = Lock()
        self._queue = RequestQueue(())

    def speak(self, engine: Engine, requests: Iterable[SpeechRequest]) -> Generator[SpeechResult | None, None, None]:
        attempts, checked = self._attempts, deque[Future[SpeechResult | None]]()
        self._queue = RequestQueue(self._drawn(requests))
        with closing(engine.speak(self._queue, self)) as results:
            try:
                for result in results:
                    if result:
                        checked.append(attempts.threads.submit(self._take, result))
                        # An attempt that is checked is written at once, and not after the engine's next result.
                        checked[-1].add_done_callback(lambda _: engine.wake())
                    while checked and (len(checked) > attempts.most_ahead or checked[0].done()):
                        if answer := checked.popleft().result():
                            yield answer
                    while self._ready:
                        yield self._ready.popleft()
                    if not result:
                        yield None
            finally:
                self._queue.close()  # an engine that waits for requests ends at once
        for future in checked:
            if answer := future.result():
                yield answer
        yield from self._ready

    def _drawn(self, requests: Iterable[SpeechRequest]) -> Generator[SpeechRequest, None, None]:
        for request in requests:
            piece = self._pieces[request.segment] = self._attempts.begin(request)
            if len(piece.attempts) == self._attempts.most:
                self._ready.append(self._attempts.finish(piece))
                continue
            with self._lock:
                self._unanswered += 1
            yield piece.next_request()
        self._count_answer()

    def _take(self, result: SpeechResult) -> SpeechResult | None:
        """In one of the threads: check what the engine has made of a request. Returns the last answer to it; None if
        another attempt is asked for."""
        try:
            if self._observer.dropped(result.segment):  # another piece of its segment has failed meanwhile
                del self._pieces[result.segment]
                self._count_answer()
                return None
            piece = self._pieces[result.segment]
            if isinstance(result, SegmentAudio) and not self._attempts.check(piece, result):
                self._queue.add(piece.next_request())
                return None
            if isinstance(result, SegmentFailure) and self._attempts.note_failure(piece, result):
                self._queue.add(piece.next_request())
                return None
            # An attempt that could not be made, as where memory ran out, does not undo the ones before it.
            answer = self._attempts.finish(piece) if piece.audio is not None else self._attempts.fail(piece, result)
            del self._pieces[result.segment]
        except BaseException:
            self._queue.close()  # nothing else would end the engine's wait, and this error would not be seen
            raise
        self._count_answer()
        return answer

    def _count_answer(self) -> None:
        with self._lock:
            self._unanswered -= 1
            if not self._unanswered:
                self._queue.close()

    def started(self, segment: int) -> None:
        self._observer.started(segment)

    def stopped(self) -> bool:
        return self._observer.stopped()

    def dropped(self, segment: int) -> bool:
        """As `ChunkObserver.dropped`; a request that is dropped counts as answered, since the engine gives it no
        result."""
        dropped = self._observer.dropped(segment)
        if dropped:
            self._count_answer()
        return dropped
