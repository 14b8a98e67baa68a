"""What a worker observes while its engine generates a chunk."""

from __future__ import annotations

from cloner.output.journal import Journal
from cloner.protocol.messages import ChunkMessage
from cloner.worker.cancellation import Cancellation
from cloner.worker.progress_log import ProgressLog
from cloner.worker.worker_process import WorkerProcess


class ChunkMonitor:
    """The engine's observer: it notes the segments that the engine starts, and tells it to pause or to stop."""

    def __init__(
        self,
        worker: WorkerProcess,
        message: ChunkMessage,
        cancellation: Cancellation,
        journal: Journal,
        log: ProgressLog,
    ) -> None:
        self._cancellation = cancellation
        self._journal = journal
        self._log = log
        self._metrics = worker.metrics
        self._speakers = {row.segment: speaker for speaker in message.slices for row in speaker.segments}
        self._begun: set[int] = set()
        self._written: set[int] = set()
        self.alone = False
        """Whether the engine is given one segment at a time."""

    def started(self, segment: int) -> None:
        """Note that the engine starts a segment. Called from any of the engine's threads.

        Blocks while the worker waits for the disk: results that cannot be written would fill the memory.
        """
        self._cancellation.wait_while_paused()
        self._begun.add(segment)
        self._journal.started(segment, alone=self.alone)
        self._metrics.started(segment)
        self._log.speaker_started(self._speakers[segment])

    @property
    def unfinished(self) -> int:
        """Segments that the engine has started, and that are not written yet."""
        return len(self._begun - self._written)

    def written(self, segment: int) -> None:
        """Note that what came of a segment is written. Another of its pieces may start after that, if one failed."""
        self._written.add(segment)

    def stopped(self) -> bool:
        """Whether the batch was cancelled."""
        return self._cancellation.stopped()

    def dropped(self, segment: int) -> bool:  # noqa: ARG002 - the protocol's
        """False: all segments of a chunk are wanted."""
        return False
