"""Whether anybody is there to work at a batch: nobody should wait in silence for a fleet that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cloner.client.connection import FleetConnection
from cloner.errors import BatchBroken
from cloner.events import Event
from cloner.names import CLOSE_BATCH
from cloner.state.batches import Progress

LOOK_S = 1.0
"""Seconds between two looks."""

NOBODY_S = 10.0
"""Seconds without worker and collector, after an outage of Redis perhaps, before somebody is told to go home."""

CANCEL_S = 15.0
"""Seconds that the workers get to give a cancelled batch back; they need two, unless they are gone, or have another
batch in hand."""


class Liveness:
    """Looks after the workers and the collector for one who waits for a batch."""

    def __init__(self, link: FleetConnection) -> None:
        self._link = link
        self._due = 0.0
        self._said_workers = self._said_collector = False
        self._collector_seen = self._anybody_seen = time.monotonic()
        self._close_due: float | None = None

    def look(self, progress: Progress) -> Iterator[str]:
        """Lines to say of a batch that is not closed: who is missing, once, and who is back.

        Has the collector close a cancelled batch that its workers do not give back. Raises `BatchBroken` where nothing
        more will come of the batch, `BrokerUnreachable`.
        """
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + LOOK_S
        workers = len(self._link.workers())
        with self._link.translate_redis_errors():
            collector = self._link.registry.collector_is_alive()
        if collector:
            self._collector_seen = now
        if collector or workers:
            self._anybody_seen = now
        if progress.cancelled:
            self._end(progress.batch_id, now, workers)
        yield from self._workers_said(workers)
        yield from self._collector_said(now, workers, collector)

    def _workers_said(self, workers: int) -> Iterator[str]:
        if not workers and not self._said_workers:
            yield Event.NO_WORKER_ALIVE.line()
        elif workers and self._said_workers:
            yield Event.WORKERS_ALIVE_AGAIN.line(workers=workers)
        self._said_workers = not workers

    def _collector_said(self, now: float, workers: int, collector: bool) -> Iterator[str]:
        # One that has just been started takes its time; of a fleet that is gone altogether, one line is enough.
        if workers and not self._said_collector and now - self._collector_seen > self._link.settings.alive_s:
            yield Event.NO_COLLECTOR_ALIVE.line()
            self._said_collector = True
        elif collector and self._said_collector:
            yield Event.COLLECTOR_ALIVE_AGAIN.line()
            self._said_collector = False

    def _end(self, batch_id: str, now: float, workers: int) -> None:
        """See to it that a cancelled batch is closed."""
        if now - self._anybody_seen > NOBODY_S:
            raise BatchBroken(
                f"batch {batch_id} is cancelled, and nobody is alive to gather what was spoken of it: its files stay,"
                f" and once the fleet is up, `cloner wait {batch_id}` prints its result"
            )
        if self._close_due is None:
            self._close_due = now + (CANCEL_S if workers else 0.0)
        if now >= self._close_due:
            self._close_due = now + CANCEL_S
            self._link.tell_collector(CLOSE_BATCH, [[]], {"batch_id": batch_id})
