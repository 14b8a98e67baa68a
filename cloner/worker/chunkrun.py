"""Speaking one chunk: draw its lines, write what comes back, say how far it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from cloner.batch import ReferenceKind, segment_seed
from cloner.engine.base import SAMPLE_RATE, Line, NotSpoken, Spoken
from cloner.errors import BadReference, RecordFailed, SegmentFailed, reason_of
from cloner.fleet import WorkerState
from cloner.keys import Keys
from cloner.logs import get_logger
from cloner.record import RecordWriter
from cloner.results import SegmentResult
from cloner.wire import ChunkMessage, SegmentRow, SpeakerPart
from cloner.worker.chunklog import ChunkLog
from cloner.worker.runtime import Runtime
from cloner.worker.voices import Voices

REPORT_S = 0.25
"""Seconds between two reports of a chunk's progress, and between two looks whether the batch was cancelled."""


@dataclass
class Tally:
    """What is finished of a chunk. Reported in absolute figures: a chunk that runs twice counts once."""

    generated: int = 0
    failed: int = 0
    frames: int = 0
    samples: int = 0
    finished: bool = False

    def to_json(self) -> str:
        return json.dumps(
            [self.generated, self.failed, self.frames, round(self.samples / SAMPLE_RATE, 3), self.finished]
        )


class ChunkRun:
    """One run of a chunk. A second run, after a crash, speaks only what the record does not have."""

    def __init__(self, runtime: Runtime, message: ChunkMessage) -> None:
        self._runtime = runtime
        self._message = message
        self._tally = Tally()
        self._spoken_s = 0.0
        self._keys = Keys(message.generation, runtime.engine.name, runtime.fingerprint)
        self._todo: dict[int, tuple[SpeakerPart, SegmentRow, str]] = {}
        self._codes: dict[str, bytes] = {}

    def run(self) -> Tally:
        """Speak all that is not finished yet."""
        self._begin()
        try:
            self._run()
            self._tally.finished = True
        finally:
            self._end()
        return self._tally

    def _run(self) -> None:
        message = self._message
        assignment = f"{message.batch_id}/{message.assignment}"
        self._runtime.say_assignment(assignment, message.speakers, message.texts, message.shared)
        try:
            self._record = self._runtime.record(message.batch_id)
            self._log = ChunkLog(self._runtime, message, self._record)
            with RecordWriter(self._record, self._runtime.name) as self._writer:
                self._speak()
            if self._log.all_done() or self._cancelled:
                self._runtime.forget_assignment(assignment)
        except RecordFailed as error:
            # A segment without its line counts as not spoken; the result says so of each.
            get_logger().error(error.message)

    def _speak(self) -> None:
        try:
            with closing(self._runtime.engine.speak(self._lines(), self._runtime.meter)) as answers:
                for answer in answers:
                    # Its file may be another batch's by now.
                    if self._is_cancelled():
                        return
                    self._take(answer)
        except RecordFailed:
            raise
        except Exception as error:  # noqa: BLE001 - an engine may break in any way; the fleet must not
            self._give_up(f"the engine broke: {reason_of(error)}")

    def _lines(self) -> Iterator[Line]:
        """The lines still to be spoken; an engine may draw them one by one or all at once."""
        parts = [(part, todo) for part in self._message.parts if (todo := list(self._unfinished(part)))]
        self._todo = {row[0]: (part, row, key) for part, todo in parts for row, key in todo}
        voices = Voices(self._runtime, [part.reference for part, _ in parts], self._codes)
        for part, todo in parts:
            if self._is_cancelled():
                return
            self._log.begin(part)
            try:
                voice = voices.get(part.reference)
            except BadReference as error:
                for row, _ in todo:
                    self._take(NotSpoken(row[0], error.code, error.message))
                continue
            for row, _ in todo:
                if self._is_cancelled():
                    return
                seed = segment_seed(self._message.generation.seed, row[0])
                yield Line(row[0], row[1], voice, self._message.generation, seed)

    def _unfinished(self, part: SpeakerPart) -> Iterator[tuple[SegmentRow, str]]:
        """The part's segments that the record does not have, with their content keys."""
        for row in part.segments:
            key = self._keys.of(part.reference, row)
            known = self._record.results.get(row[0])
            if known and known.generated and known.key == key and self._runtime.outputs.has(known.output, known.size):
                self._add(known)
            else:
                yield row, key

    def _take(self, answer: Spoken | NotSpoken) -> None:
        """Write a segment's audio and its line in the record, in that order."""
        part, row, key = self._todo[answer.segment]
        index, _, output = row
        result = SegmentResult(
            segment=index,
            speaker=part.id,
            output=output,
            key=key,
            assignment=self._message.assignment,
            worker=self._runtime.name,
        )
        result = result.model_copy(update=self._written(answer, output))
        log = get_logger().bind(speaker=part.id, segment=index)
        if not result.generated:
            log.warning(f"❌ Segment {index} of Speaker {part.id} failed: {result.message}")
        elif result.truncated:
            log.warning(
                f"⚠ Segment {index} of Speaker {part.id} was cut after {result.frames} frames, the end of its text may "
                "be missing: split the text, or raise max_new_tokens"
            )
        self._writer.append(result)
        del self._todo[answer.segment]
        self._spoken_s += result.audio_s
        self._runtime.meter.finished(result)
        self._add(result)
        self._log.count(part)
        if time.monotonic() - self._reported > REPORT_S:
            self._report()

    def _written(self, answer: Spoken | NotSpoken, output: str) -> dict[str, object]:
        """Write the answer's audio, if it has any; what became of it, as fields of a `SegmentResult`."""
        if isinstance(answer, NotSpoken):
            return {"code": answer.code, "message": answer.message}
        try:
            size = self._runtime.outputs.write_audio(output, answer.audio, SAMPLE_RATE)
        except SegmentFailed as error:
            return {"code": error.code, "message": error.message}
        seconds = len(answer.audio) / SAMPLE_RATE
        return {"frames": answer.frames, "audio_s": seconds, "truncated": answer.truncated, "size": size}

    def _add(self, result: SegmentResult) -> None:
        self._tally.generated += result.generated
        self._tally.failed += not result.generated
        self._tally.frames += result.frames
        self._tally.samples += round(result.audio_s * SAMPLE_RATE)

    def _give_up(self, reason: str) -> None:
        """Fail what the engine has not answered, whether it has drawn it or not."""
        get_logger().error(reason)
        for segment in list(self._todo):
            self._take(NotSpoken(segment, "engine_failed", reason))

    def _begin(self) -> None:
        """Say that this worker is busy, see whether the batch was cancelled, fetch all codes (they are a few KB)."""
        names, message = self._runtime.names, self._message
        wanted = {part.reference.digest for part in message.parts if part.reference.kind is ReferenceKind.CODES}
        with self._runtime.blobs.pipeline(transaction=False) as pipe:
            pipe.hset(names.worker(self._runtime.name), "state", WorkerState.BUSY)
            pipe.hexists(names.batch(message.batch_id), "cancelled")
            for digest in wanted:
                pipe.get(names.reference(digest))
            _, cancelled, *codes = pipe.execute()
        self._cancelled = bool(cancelled)
        self._codes = {digest: data for digest, data in zip(wanted, codes, strict=True) if data is not None}
        self._began = self._reported = self._looked = time.monotonic()

    def _end(self) -> None:
        """Say how far the chunk came, and that this worker is ready for the next."""
        names, message = self._runtime.names, self._message
        with self._runtime.redis.pipeline(transaction=False) as pipe:
            pipe.hset(names.progress(message.batch_id), str(message.number), self._tally.to_json())
            pipe.expire(names.progress(message.batch_id), self._runtime.settings.batch_ttl_s)
            pipe.hset(names.worker(self._runtime.name), "state", WorkerState.READY)
            if self._spoken_s:
                pipe.hincrbyfloat(names.worker(self._runtime.name), "spoken_s", self._spoken_s)
                pipe.hincrbyfloat(names.worker(self._runtime.name), "busy_s", time.monotonic() - self._began)
            pipe.execute()

    def _report(self) -> None:
        self._reported = time.monotonic()
        key = self._runtime.names.progress(self._message.batch_id)
        self._runtime.redis.hset(key, str(self._message.number), self._tally.to_json())

    def _is_cancelled(self) -> bool:
        if not self._cancelled and time.monotonic() - self._looked > REPORT_S:
            self._looked = time.monotonic()
            key = self._runtime.names.batch(self._message.batch_id)
            self._cancelled = bool(self._runtime.redis.hexists(key, "cancelled"))
        return self._cancelled
