"""Whether workers and a collector are alive, so that `wait` does not block in silence when they are not."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cloner.client.connection import FleetConnection
from cloner.errors import BatchBroken
from cloner.events import Event
from cloner.names import CLOSE_BATCH
from cloner.state.progress import Progress

CHECK_INTERVAL_S = 1.0
"""Seconds between two checks."""

GIVE_UP_S = 10.0
"""Seconds without any live worker or collector before `wait` gives up a cancelled batch; Redis may just be back."""

CANCEL_S = 15.0
"""Seconds that the workers get to acknowledge the chunks of a cancelled batch, before the collector closes it without
them. They need two, unless they have died or are busy with another batch."""


class Liveness:
    """Checks the workers and the collector for a client that waits for a batch."""

    def __init__(self, connection: FleetConnection) -> None:
        self._connection = connection
        self._due = 0.0
        self._workers_missing = self._collector_missing = False
        self._collector_seen = self._any_seen = time.monotonic()
        self._close_due: float | None = None

    def check(self, progress: Progress) -> Iterator[str]:
        """Lines about a batch that is not closed: that workers or collector are missing, once, and that they are back.

        Yields nothing within `CHECK_INTERVAL_S` of the last check. Has the collector close a cancelled batch whose
        workers do not acknowledge it. Raises `BatchBroken` if no process is left to close it, `BrokerUnreachable`.
        """
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + CHECK_INTERVAL_S
        workers = len(self._connection.workers())
        with self._connection.translate_redis_errors():
            collector = self._connection.registry.collector_is_alive()
        if collector:
            self._collector_seen = now
        if collector or workers:
            self._any_seen = now
        if progress.cancelled:
            self._close_cancelled(progress.batch_id, now, workers)
        yield from self._report_workers(workers)
        yield from self._report_collector(now, workers, collector)

    def _report_workers(self, workers: int) -> Iterator[str]:
        if not workers and not self._workers_missing:
            yield Event.NO_WORKER_ALIVE.line()
        elif workers and self._workers_missing:
            yield Event.WORKERS_ALIVE_AGAIN.line(workers=workers)
        self._workers_missing = not workers

    def _report_collector(self, now: float, workers: int, collector: bool) -> Iterator[str]:
        # A collector that was just started takes a while; for a fleet without workers, their line is enough.
        if workers and not self._collector_missing and now - self._collector_seen > self._connection.settings.alive_s:
            yield Event.NO_COLLECTOR_ALIVE.line()
            self._collector_missing = True
        elif collector and self._collector_missing:
            yield Event.COLLECTOR_ALIVE_AGAIN.line()
            self._collector_missing = False

    def _close_cancelled(self, batch_id: str, now: float, workers: int) -> None:
        """Send the collector a message to close the batch, once its workers had `CANCEL_S` for it."""
        if now - self._any_seen > GIVE_UP_S:
            raise BatchBroken(
                f"batch {batch_id} is cancelled, and no process is alive to collect what was generated of it:"
                f" its files stay, and once the fleet is up, `cloner wait {batch_id}` prints its result"
            )
        if self._close_due is None:
            self._close_due = now + (CANCEL_S if workers else 0.0)
        if now >= self._close_due:
            self._close_due = now + CANCEL_S
            self._connection.tell_collector(CLOSE_BATCH, batch_id)
