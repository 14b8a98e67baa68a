"""What a worker observes while its engine generates a chunk."""

from __future__ import annotations

import threading
from types import TracebackType

from redis import RedisError

from cloner.output.journal import Journal
from cloner.protocol.messages import ChunkMessage
from cloner.worker.progress_log import ProgressLog
from cloner.worker.runtime import Runtime

CANCEL_INTERVAL_S = 0.25
"""Seconds between two checks whether the batch was cancelled."""


class ChunkMonitor:
    """Notes the segments that the engine starts, and checks whether the batch was cancelled.

    It checks from a thread of its own: the engine may be in the middle of a long step, or Redis away. A context
    manager: it checks while it is entered.
    """

    def __init__(
        self, runtime: Runtime, message: ChunkMessage, journal: Journal, log: ProgressLog, *, cancelled: bool = False
    ) -> None:
        self._batches = runtime.batches
        self._batch_id = message.batch_id
        self._journal = journal
        self._log = log
        self._meter = runtime.meter
        self._speakers = {row[0]: speaker for speaker in message.slices for row in speaker.segments}
        self._cancelled = threading.Event()
        if cancelled:
            self._cancelled.set()
        self._over = threading.Event()
        self.alone = False
        """Whether the engine is given one segment at a time."""

    def started(self, segment: int) -> None:
        """Note that the engine starts a segment. Called from any of the engine's threads."""
        self._journal.started(segment, alone=self.alone)
        self._meter.started(segment)
        self._log.speaker_started(self._speakers[segment])

    def stopped(self) -> bool:
        """Whether the batch was cancelled."""
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> bool:
        """Let time pass; returns true as soon as the batch is cancelled."""
        return self._cancelled.wait(seconds)

    def stop(self) -> None:
        """Note that the batch was cancelled."""
        self._cancelled.set()

    def __enter__(self) -> ChunkMonitor:
        threading.Thread(target=self._check, name="cancel", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not joined: while Redis is away, the thread's request is retried for as long as any other.
        self._over.set()

    def _check(self) -> None:
        while not self._over.wait(CANCEL_INTERVAL_S):
            try:
                if self._batches.is_cancelled(self._batch_id):
                    self.stop()
                    return
            except RedisError:
                continue  # the requests that something depends on report it
