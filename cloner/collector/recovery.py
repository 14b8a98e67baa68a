"""Recovery of stalled batches: open batches without a message that would go on with them; and the end of reviews.

A Redis that loses its last second, as `appendfsync everysec` allows, loses the messages of that second. If a worker
dies between storing a chunk's result and counting it in the chord, Celery does not run the chunk again, since it has a
result. A collector that is stopped while it sends a round leaves some of it unsent. Opening and closing a batch may
both run twice, so resuming one that is not stalled does no harm.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import lru_cache

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from cloner.collector.in_flight import batches_in_flight, batches_in_queue
from cloner.collector.review_watch import ReviewWatch
from cloner.collector.room import may_send
from cloner.errors import Damaged, UnknownBatch
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CLOSE_BATCH, OPEN_BATCH, QueueNames, collector_name, is_collector
from cloner.queueing.app import make_app, send_to_collector
from cloner.queueing.given_up import stop_if_damaged
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import HASTE_S, connect
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState
from cloner.state.registry import Registry

SCAN_INTERVAL_S = 5.0
"""Seconds between two scans. A batch is stalled if both find it so: it is stored before its message is sent."""

PAUSE = 50
"""Times as long as a scan for stalled batches took, at least, until the next: queues of many large messages take long
to read."""


def watch_stalled_batches(settings: Settings) -> None:
    """Resume stalled batches, and end reviews without reviewers, for as long as this process lives."""
    redis = connect(settings.require_redis_url(), decode=False, retries=0, answer_s=HASTE_S)
    text = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    app = make_app(settings)
    reviews = ReviewWatch(app, settings.queues, settings.alive_s)
    registry = Registry(text, RedisKeys(settings.fleet), settings.alive_s)
    seen: set[str] = set()
    due = 0.0
    while True:
        threading.Event().wait(SCAN_INTERVAL_S)
        stalled: set[str] = set()
        try:
            reviews.scan(BatchStore.of(settings, redis), registry, redis)
            began = time.monotonic()
            if began < due:
                continue
            stalled.update(stalled_batches(text, redis, settings))
            due = began + PAUSE * (time.monotonic() - began)
            for batch_id in stalled & seen:
                resume_batch(app, BatchStore.of(settings, redis), settings.queues, batch_id)
        except (RedisError, OperationalError) as error:
            if stop_if_damaged(error, text, settings, collector_name(settings.box), os.getpid()):
                return
            # An outage of Redis: Celery logs it.
            log_event(Event.STALLED_BATCHES_NOT_READ, error=error)
        seen = stalled - seen


def stalled_batches(text: Redis, redis: Redis, settings: Settings) -> Iterator[str]:
    """Ids of the open batches of which no message is in a queue or in flight, whatever there is of others; and of those
    whose round is not sent as a whole, while no collector has a message of them and Redis has room. `text` decodes."""
    keys, queues, batches = RedisKeys(settings.fleet), settings.queues, BatchStore.of(settings, redis)
    open_ids = batches.open_ids(cancelled=True)
    if not open_ids:
        return
    worker_queues = [*Registry(text, keys, settings.alive_s).worker_queues(), queues.shared_queue()]
    # In the order in which a message goes from queue to queue, and to a process.
    to_workers = {batch for queue in worker_queues for batch in batches_in_queue(redis, queue)}
    to_reviewers = batches_in_queue(redis, queues.review_queue)
    to_collectors = batches_in_queue(redis, queues.collector_queue)
    to_collectors |= batches_in_flight(redis, keys, is_collector)
    under_way = to_workers | to_reviewers | to_collectors | batches_in_flight(redis, keys)
    for batch_id in open_ids:
        if batch_id in to_collectors:
            continue
        try:
            present = batches.round(batch_id)
            if present.waits:
                continue  # the watch of reviews has it go on
            is_sent = present.is_review or batches.is_sent(batch_id, present.number)
            if batch_id in under_way if is_sent else not may_send(redis, settings):
                continue
        except Damaged:  # `resume_batch` says so
            if batch_id in under_way:
                continue
        yield batch_id


def resume_batch(app: Celery, batches: BatchStore, queues: QueueNames, batch_id: str) -> None:
    """Send a message that opens a stalled batch again, or ends its round if all of its chunks are finished.

    A batch that cannot be read here is left as it is, with a warning: collectors of two versions may run side by side,
    and the message would have one of this version mark the other's batch as broken."""
    try:
        progress = batches.progress(batch_id)
        if progress.closed or batches.manifest(batch_id) is None:
            return
    except UnknownBatch:  # it has expired since it was found
        return
    except Damaged as error:
        _warn_once(batch_id, error.message)
        return
    if progress.state is BatchState.RUNNING and (progress.all_chunks_finished or progress.round.is_review):
        log_event(Event.STALLED_BATCH_CLOSED, batch=batch_id)
        send_to_collector(app, queues, CLOSE_BATCH, batch_id, ended=progress.round.number)
    else:
        log_event(Event.STALLED_BATCH_REOPENED, batch=batch_id)
        send_to_collector(app, queues, OPEN_BATCH, batch_id)


@lru_cache(maxsize=1000)
def _warn_once(batch_id: str, reason: str) -> None:
    """Log that a batch is not resumed, if that is not among the last thousand: scans find it again and again."""
    log_event(Event.STALLED_BATCH_NOT_RESUMED, batch=batch_id, error=reason)
