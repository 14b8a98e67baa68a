"""Ends reviews without an answer to wait for: no reviewer is alive to hear what was sent, or the batch is cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery import Celery
from redis import Redis

from cloner.collector.in_flight import batches_in_flight
from cloner.errors import Damaged
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CLOSE_BATCH, QueueNames, is_collector
from cloner.queueing.app import send_to_collector
from cloner.state.batches import BatchStore
from cloner.state.registry import Registry


class ReviewWatch:
    """Looks now and then whether reviews are to be ended. Raises `RedisError`, `OperationalError`."""

    def __init__(self, app: Celery, queues: QueueNames, alive_s: float, clock: Callable[[], float] = time.monotonic):
        """A review ends if no reviewer has been alive for `alive_s` seconds, as this process sees it."""
        self._app = app
        self._queues = queues
        self._alive_s = alive_s
        self._clock = clock
        self._seen_at = clock()

    def scan(self, batches: BatchStore, registry: Registry, redis: Redis) -> None:
        """Send the collector a message for each batch whose review is to end, unless a collector has others to read, or
        ends the batch's round. Without reviewers, remove what is left for them. `redis` must not decode responses."""
        now = self._clock()
        if registry.reviewers():
            self._seen_at = now
        are_missing = now - self._seen_at >= self._alive_s
        if registry.redis.exists(self._queues.collector_queue):
            return
        # After the queue: a message goes from there to its consumer, and batches are read after both.
        at_work = batches_in_flight(redis, registry.keys, is_collector)
        for batch_id in batches.open_ids(cancelled=True):
            try:
                present = batches.round(batch_id)
            except Damaged:
                continue  # no collector can close it
            is_cancelled = batches.is_cancelled(batch_id)
            if batch_id in at_work or not present.reviews or not (are_missing or is_cancelled):
                continue
            reason = "it is cancelled" if is_cancelled else f"no reviewer was alive for {self._alive_s:g} s"
            log_event(Event.REVIEW_ENDED, batch=batch_id, reason=reason)
            send_to_collector(self._app, self._queues, CLOSE_BATCH, batch_id, ended=present.number, end_review=True)
        if are_missing:
            # What is left of a batch whose review goes on is sent again.
            redis.delete(self._queues.review_queue)
