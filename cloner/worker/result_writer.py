"""Writing a segment's audio, then its line in the record. Where the disk is full or fails, the worker waits for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

from cloner.audio import SAMPLE_RATE, Audio, Samples16
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechResult
from cloner.errors import NoRoom, SegmentFailed
from cloner.output.audio_peaks import peaks_of
from cloner.output.journal import Journal
from cloner.output.peaks import PeaksWriter
from cloner.output.record import Record, RecordWriter
from cloner.output.takes import Takes
from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import SegmentResult
from cloner.worker.attempts import Attempts
from cloner.worker.disk_wait import DiskWait
from cloner.worker.encoding import Encoding
from cloner.worker.output_flush import OutputFlush
from cloner.worker.pending import PendingSegment
from cloner.worker.worker_process import WorkerProcess


class FileOwnership:
    """What a chunk's record and journal know of the file that a segment's audio is about to replace."""

    def __init__(
        self, segment: PendingSegment, record: Record, journal: Journal, takes: Takes, *, overwrite: bool
    ) -> None:
        self._segment = segment
        self._record = record
        self._journal = journal
        self._takes = takes
        self._overwrite = overwrite

    def publishes(self, digest: str) -> None:
        """Note in the journal that a file with this digest is about to get its name."""
        self._journal.publishes(digest)

    def owns(self, digest: str) -> bool:
        """Whether a line of the record, or a run that ended before it could write its line, has this digest; or the
        take before this one, which is kept before it is replaced."""
        segment = self._segment
        if segment.replaces and digest == segment.replaces:
            self._takes.keep_replaced(segment.output, segment.key, digest)
            return True
        if self._overwrite or any(digest in run.digests for run in self._journal.runs):
            return True
        self._record.refresh()  # another worker may have written the file since
        return any(line.digest == digest for line in self._record.generated_lines(segment.index))


class ResultWriter:
    """Writes what came of a chunk's segments. A context manager around the worker's file of the record.

    Raises `RecordFailed`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what writing a file touches
        self,
        worker: WorkerProcess,
        message: ChunkMessage,
        record: Record,
        journal: Journal,
        disk: DiskWait,
        flush: OutputFlush,
        attempts: Attempts,
    ) -> None:
        self._worker_name = worker.name
        self._assignment = message.assignment
        self._fixed_length = message.generation.fixed_length
        self._overwrite = message.overwrite
        self._outputs = worker.outputs
        self._takes = Takes(worker.outputs, message.batch_id)
        self._record = record
        self._journal = journal
        self._lines = RecordWriter(record, worker.name)
        self._peaks = PeaksWriter(record.folder, worker.name)
        self._disk = disk
        self._flush = flush
        self._attempts = attempts

    def __enter__(self) -> ResultWriter:
        self._disk.retry(self._lines.open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peaks.close()
        self._lines.close()

    def write(self, segment: PendingSegment, answer: SpeechResult, encoding: Encoding | None = None) -> SegmentResult:
        """Write the audio of the segment's answer, and its line in the record, which is returned. Without an `encoding`
        the audio is written as it is.

        A segment whose audio has no room fails; the next one waits until there is room. So does a segment whose audio
        cannot be written for as long as the chunk may wait; then `DiskWait.failure` is set.
        """
        checked = self._attempts.taken(segment.index)
        result = SegmentResult(
            segment=segment.index,
            speaker=segment.speaker.id,
            output=segment.output,
            key=segment.key,
            assignment=self._assignment,
            worker=self._worker_name,
            take=segment.take,
            seed=segment.seed if segment.take > 1 else 0,
            suspicion=checked.suspicion,
        )
        needed = 0
        try:
            result = replace(result, **self._disk.retry(lambda: self._write_audio(answer, segment, encoding)))
        except SegmentFailed as error:
            result = replace(result, code=error.code, message=error.message)
            if isinstance(error, NoRoom) and isinstance(answer, SegmentAudio):
                needed = _file_size(answer.audio, encoding)
        result = replace(result, attempts=checked.described(generated=result.generated))
        self._disk.retry(lambda: self._lines.append(result))
        if result.generated:
            self._attempts.written(checked)
        self._flush.written()
        if needed:
            self._disk.wait_for_room(needed)
        return result

    def _write_audio(self, answer: SpeechResult, segment: PendingSegment, encoding: Encoding | None) -> dict[str, Any]:
        """Write the answer's audio, if it has any; returns the fields of a `SegmentResult` that follow from it."""
        if isinstance(answer, SegmentFailure):
            return {"code": answer.code, "message": answer.message}
        seconds = len(answer.audio) / SAMPLE_RATE
        if answer.truncated and not self._fixed_length:
            message = (
                f"it is cut after {answer.frames} frames ({seconds:.1f} s): raise max_new_tokens, or split the text"
            )
            return {"code": "cut_off", "message": message}
        owned = FileOwnership(segment, self._record, self._journal, self._takes, overwrite=self._overwrite)
        if encoding is None:
            written = self._outputs.write_audio(segment.output, answer.audio, SAMPLE_RATE, owned)
            peaks = peaks_of(answer.audio)
        else:
            written = self._outputs.write(segment.output, lambda: encoding().data, owned)
            seconds, peaks = encoding().seconds, encoding().peaks
        self._peaks.append(written.digest, peaks)
        return {"frames": answer.frames, "audio_s": seconds, **asdict(written)}


def _file_size(audio: Audio | Samples16, encoding: Encoding | None) -> int:
    """Bytes of the audio's file; where encoding found no room in memory either, those of its samples of 16 bits."""
    if encoding:
        with suppress(OSError):
            return len(encoding().data)
    return 2 * len(audio)
