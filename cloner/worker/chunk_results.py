"""Recording what came of a chunk's segments: files, record, log, metrics, progress."""

from __future__ import annotations

from collections.abc import Iterable

from cloner.engine.base import SegmentFailure, SpeechResult
from cloner.events import Event
from cloner.logs import log_event
from cloner.protocol.results import SegmentResult
from cloner.worker.chunk_report import ChunkReport
from cloner.worker.disk_wait import DiskWait
from cloner.worker.encoding import Encoding
from cloner.worker.pending import PendingSegment
from cloner.worker.progress_log import ProgressLog
from cloner.worker.result_writer import ResultWriter


class ChunkResults:
    """The results of one run of a chunk. Raises `RecordFailed`.

    A segment is removed from `pending` when its result comes.
    """

    def __init__(
        self,
        pending: dict[int, PendingSegment],
        writer: ResultWriter,
        log: ProgressLog,
        report: ChunkReport,
        disk: DiskWait,
    ) -> None:
        self._pending = pending
        self._writer = writer
        self._log = log
        self._report = report
        self._disk = disk

    def add(self, answer: SpeechResult, encoding: Encoding | None = None) -> None:
        """Write what came of a segment, log it and count it. `encoding` is as in `ResultWriter.write`."""
        segment = self._pending.pop(answer.segment)
        self._log.speaker_started(segment.speaker)
        result = self._writer.write(segment, answer, encoding)
        self._warn(result)
        self._disk.retry(lambda: self._log.segment_finished(segment.speaker))
        self._report.add(result)

    def fail(self, segments: Iterable[int], code: str, message: str) -> None:
        """Fail segments that the engine is not asked to generate."""
        for segment in list(segments):
            self.add(SegmentFailure(segment, code, message))

    def _warn(self, result: SegmentResult) -> None:
        if not result.generated:
            log_event(Event.SEGMENT_FAILED, segment=result.segment, speaker=result.speaker, error=result.message)
