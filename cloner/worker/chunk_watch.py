"""Who looks after a chunk while an engine speaks it."""

from __future__ import annotations

import threading
from types import TracebackType

from redis import RedisError

from cloner.output.journal import Journal
from cloner.worker.runtime import Runtime

LOOK_S = 0.25
"""Seconds between two looks whether the batch was cancelled."""


class ChunkWatch:
    """Notes what is taken in hand, and asks whether the batch was cancelled.

    It asks from a thread of its own: the engine may be in the middle of a long step, or Redis away. A context manager:
    it looks while it is entered.
    """

    def __init__(self, runtime: Runtime, batch_id: str, journal: Journal) -> None:
        self._batches = runtime.batches
        self._batch_id = batch_id
        self._journal = journal
        self._meter = runtime.meter
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self.alone = False
        """Whether the engine is given one segment at a time."""

    def started(self, segment: int) -> None:
        self._journal.started(segment, alone=self.alone)
        self._meter.started(segment)

    def stopped(self) -> bool:
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> bool:
        """Let time pass; true as soon as the batch is cancelled."""
        return self._cancelled.wait(seconds)

    def stop(self) -> None:
        """The batch was cancelled."""
        self._cancelled.set()

    def __enter__(self) -> ChunkWatch:
        threading.Thread(target=self._look, name="cancel", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not waited for: Redis may be away, and then it is asked for as long as everybody else asks it.
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                if self._batches.is_cancelled(self._batch_id):
                    self.stop()
                    return
            except RedisError:
                continue  # it is said where something depends on it
