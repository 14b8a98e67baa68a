"""What a run of a chunk reports to Redis: the chunk's progress, and the state of its worker."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress

from redis import RedisError

from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import SegmentResult
from cloner.state.progress import ChunkProgress
from cloner.worker.worker_process import WorkerProcess

REPORT_INTERVAL_S = 0.25
"""Seconds between two reports of a chunk's progress."""


class ChunkReport:
    """The progress of one run of a chunk, which makes this as it begins; `end` is called whatever happens."""

    def __init__(self, worker: WorkerProcess, message: ChunkMessage) -> None:
        self._worker = worker
        self._message = message
        self.progress = ChunkProgress()
        """Counts of the whole chunk, earlier runs included."""
        self._audio_s = 0.0
        """Seconds of audio that this run has generated."""
        self._unable: set[str] = set()
        self._began = self._reported = time.monotonic()

    def suspect(self, workers: Collection[str]) -> None:
        """Note workers that could generate nothing of what is pending: if this run can, they are at fault."""
        self._unable.update(workers)

    def begin_run(self, number: int) -> None:
        """Report that the journal has begun the chunk's run of that number, counted from 1.

        From now on it tells why processes die: a launcher does not put that down to the message.
        """
        self.progress.runs = number
        self._report()

    def add(self, result: SegmentResult) -> None:
        """Count a segment of this run; report, if the last report is `REPORT_INTERVAL_S` old."""
        self._worker.metrics.finished(result)
        self._audio_s += result.audio_s
        self.progress.add(result)
        if time.monotonic() - self._reported > REPORT_INTERVAL_S:
            self._report()

    def end(self) -> None:
        """Report the chunk's counts, and that this worker is ready for the next chunk."""
        worker, message = self._worker, self._message
        worker.batches.report(message.batch_id, {message.number: self.progress})
        busy_s = time.monotonic() - self._began
        worker.registry.finish_chunk(worker.name, worker.capacity(), self._audio_s, busy_s)
        if self._audio_s:
            for name in self._unable:
                if worker.registry.get(name):
                    worker.registry.update(name, suspected_faulty=f"{message.batch_id}/{message.number}")

    def _report(self) -> None:
        self._reported = time.monotonic()
        with suppress(RedisError):  # the next report, or the end, has the same counts and more
            self._worker.batches.report(self._message.batch_id, {self._message.number: self.progress})
