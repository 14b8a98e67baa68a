"""Where answers go: a segment's audio, then its line in the record. Where the disk is full, it waits for room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from cloner.audio import SAMPLE_RATE
from cloner.engine.base import SegmentAudio, SegmentFailure
from cloner.errors import NoRoom, RecordFull, SegmentFailed
from cloner.logs import get_logger
from cloner.output.record import Record, RecordWriter
from cloner.protocol.results import SegmentResult
from cloner.worker.chunk_watch import ChunkWatch
from cloner.worker.runtime import Runtime

T = TypeVar("T")

ROOM_S = 1.0
"""Seconds between two looks whether a full disk has room again."""

LINE_BYTES = 4096
"""More than a line of the record takes."""


class Outbox:
    """Writes what comes of a chunk's segments. Raises `RecordFailed`."""

    def __init__(self, runtime: Runtime, record: Record, watch: ChunkWatch) -> None:
        self._runtime = runtime
        self._record = record
        self._watch = watch

    def open(self) -> RecordWriter:
        """This worker's file of the record; to be handed to `put`."""
        return self.patiently(lambda: RecordWriter(self._record, self._runtime.name))

    def put(self, writer: RecordWriter, result: SegmentResult, answer: SegmentAudio | SegmentFailure) -> SegmentResult:
        """Write the answer, and `result` with what became of it.

        A segment whose audio has no room is failed; the next one waits until it has.
        """
        needed = 0
        try:
            result = result.model_copy(update=self._written(answer, result.output))
        except SegmentFailed as error:
            result = result.model_copy(update={"code": error.code, "message": error.message})
            # Samples take two bytes in the largest of the formats.
            needed = 2 * len(answer.audio) if isinstance(error, NoRoom) and isinstance(answer, SegmentAudio) else 0
        self.patiently(lambda: writer.append(result))
        if needed:
            self._wait_for_room(needed)
        return result

    def patiently(self, write: Callable[[], T]) -> T:
        """Write something small; where there is no room for it, wait and try again.

        Raises `RecordFull` if the batch is cancelled meanwhile.
        """
        while True:
            try:
                return write()
            except RecordFull:
                if not self._wait_for_room(LINE_BYTES):
                    raise

    def _written(self, answer: SegmentAudio | SegmentFailure, output: str) -> dict[str, object]:
        """Write the answer's audio, if it has any; what became of it, as fields of a `SegmentResult`."""
        if isinstance(answer, SegmentFailure):
            return {"code": answer.code, "message": answer.message}
        written = self._runtime.outputs.write_audio(output, answer.audio, SAMPLE_RATE)
        seconds = len(answer.audio) / SAMPLE_RATE
        return {"frames": answer.frames, "audio_s": seconds, "truncated": answer.truncated, **asdict(written)}

    def _wait_for_room(self, size: int) -> bool:
        """Wait until a file of so many bytes would fit; false if the batch is cancelled meanwhile."""
        root = self._runtime.outputs.root
        get_logger().error(f"No room in {root}: waiting until there is")
        while not self._watch.wait(ROOM_S):
            self._runtime.note_step()  # who waits does not hang
            if self._runtime.outputs.has_room(size):
                get_logger().info(f"There is room in {root} again")
                return True
        return False
