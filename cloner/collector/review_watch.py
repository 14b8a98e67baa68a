"""Ends reviews without an answer to wait for: no reviewer is alive to hear what was sent, or the batch is cancelled.
Begins those that have waited for others."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery import Celery
from redis import Redis

from cloner.collector.in_flight import batches_in_flight, batches_in_queue, remove_from_queue
from cloner.collector.review_turns import may_be_reviewed, open_rounds
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CLOSE_BATCH, QueueNames, is_collector
from cloner.queueing.app import send_to_collector
from cloner.state.batches import BatchStore
from cloner.state.progress import Round
from cloner.state.registry import Registry


class ReviewWatch:
    """Looks now and then whether reviews are to be ended or begun. Raises `RedisError`, `OperationalError`."""

    def __init__(self, app: Celery, queues: QueueNames, alive_s: float, clock: Callable[[], float] = time.monotonic):
        """A review ends if no reviewer has been alive for `alive_s` seconds, as this process sees it."""
        self._app = app
        self._queues = queues
        self._alive_s = alive_s
        self._clock = clock
        self._seen_at = clock()

    def scan(self, batches: BatchStore, registry: Registry, redis: Redis) -> None:
        """Send the collector a message for each batch whose review is to end, or has waited and may begin, unless the
        collector's queue has one of that batch, or a collector ends its round. Renew all open batches. Without
        reviewers, remove what is left for them. `redis` must not decode responses."""
        now = self._clock()
        if registry.reviewers():
            self._seen_at = now
        are_missing = now - self._seen_at >= self._alive_s
        queued = batches_in_queue(redis, self._queues.collector_queue)
        # After the queue: a message goes from there to its consumer, and batches are read after both.
        at_work = batches_in_flight(redis, registry.keys, is_collector)
        batches.renew(batches.open_ids(cancelled=True))  # a round may last longer than a batch is kept
        rounds = open_rounds(batches)
        for batch_id, present in rounds:
            if batch_id in queued or batch_id in at_work or not present.is_review:
                continue
            reason = f"no reviewer was alive for {self._alive_s:g} s" if are_missing else ""
            if batches.is_cancelled(batch_id):
                reason = "it is cancelled"
                if present.reviews and not are_missing:
                    # Else they would be heard for nothing.
                    remove_from_queue(redis, self._queues.review_queue, batch_id)
            if reason:
                log_event(Event.REVIEW_ENDED, batch=batch_id, reason=reason)
            elif not (present.waits and may_be_reviewed(batch_id, present.to_review, rounds)):
                continue
            self._end_round(batch_id, present, end_review=bool(reason))
        if are_missing:
            # What is left of a batch whose review goes on is sent again.
            redis.delete(self._queues.review_queue)

    def _end_round(self, batch_id: str, present: Round, *, end_review: bool) -> None:
        arguments = {"ended": present.number, "end_review": end_review}
        send_to_collector(self._app, self._queues, CLOSE_BATCH, batch_id, **arguments)
