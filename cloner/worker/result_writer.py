"""Writing a segment's audio, then its line in the record. Where the disk is full, the worker waits for room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Protocol, TypeVar

from cloner.audio import SAMPLE_RATE
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechResult
from cloner.errors import NoRoom, RecordFull, SegmentFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.record import Record, RecordWriter
from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import SegmentResult
from cloner.worker.pending import PendingSegment
from cloner.worker.runtime import Runtime

T = TypeVar("T")

ROOM_INTERVAL_S = 1.0
"""Seconds between two checks whether a full disk has room again."""

LINE_BYTES = 4096
"""More than a line of the record takes."""


class Waiting(Protocol):
    """A wait that a cancellation ends."""

    def wait(self, seconds: float) -> bool:
        """Let time pass; returns true as soon as the batch is cancelled."""
        ...


class FullDiskWait:
    """Waits while the disk under the outputs is full."""

    def __init__(self, runtime: Runtime, waiting: Waiting) -> None:
        self._runtime = runtime
        self._waiting = waiting

    def retry(self, write: Callable[[], T]) -> T:
        """Write something small; while there is no room for it, wait and try again.

        Returns what `write` returns. Raises `RecordFull` if the batch is cancelled meanwhile.
        """
        while True:
            try:
                return write()
            except RecordFull:
                if not self.wait_for_room(LINE_BYTES):
                    raise

    def wait_for_room(self, size: int) -> bool:
        """Wait until a file of `size` bytes fits; returns false if the batch is cancelled meanwhile."""
        outputs = self._runtime.outputs
        log_event(Event.DISK_FULL, folder=outputs.root)
        while not self._waiting.wait(ROOM_INTERVAL_S):
            # Counted as progress, so that the hang check does not fire.
            self._runtime.note_step()
            if outputs.has_room(size):
                log_event(Event.DISK_HAS_ROOM, folder=outputs.root)
                return True
        return False


class ResultWriter:
    """Writes what came of a chunk's segments. A context manager around the worker's file of the record.

    Raises `RecordFailed`.
    """

    def __init__(self, runtime: Runtime, message: ChunkMessage, record: Record, full_disk: FullDiskWait) -> None:
        self._worker = runtime.name
        self._assignment = message.assignment
        self._outputs = runtime.outputs
        self._lines = RecordWriter(record, runtime.name)
        self._full_disk = full_disk

    def __enter__(self) -> ResultWriter:
        self._full_disk.retry(self._lines.open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()

    def write(self, segment: PendingSegment, answer: SpeechResult) -> SegmentResult:
        """Write the audio of the segment's answer, and its line in the record, which is returned.

        A segment whose audio has no room fails; the next one waits until there is room.
        """
        result = SegmentResult(
            segment=segment.index,
            speaker=segment.speaker.id,
            output=segment.output,
            key=segment.key,
            assignment=self._assignment,
            worker=self._worker,
        )
        needed = 0
        try:
            result = result.model_copy(update=self._write_audio(answer, segment.output))
        except SegmentFailed as error:
            result = result.model_copy(update={"code": error.code, "message": error.message})
            # Samples take two bytes in the largest of the formats.
            needed = 2 * len(answer.audio) if isinstance(error, NoRoom) and isinstance(answer, SegmentAudio) else 0
        self._full_disk.retry(lambda: self._lines.append(result))
        if needed:
            self._full_disk.wait_for_room(needed)
        return result

    def _write_audio(self, answer: SpeechResult, output: str) -> dict[str, object]:
        """Write the answer's audio, if it has any; returns the fields of a `SegmentResult` that follow from it."""
        if isinstance(answer, SegmentFailure):
            return {"code": answer.code, "message": answer.message}
        written = self._outputs.write_audio(output, answer.audio, SAMPLE_RATE)
        seconds = len(answer.audio) / SAMPLE_RATE
        return {"frames": answer.frames, "audio_s": seconds, "truncated": answer.truncated, **asdict(written)}
