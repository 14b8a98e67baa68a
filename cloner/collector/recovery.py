"""Batches of which nothing is under way any more: noticed, and set going again.

A Redis that loses its last second, as `appendfsync everysec` allows, loses the messages of that second. A worker that
dies between a chunk's result and the chord's count of it is not asked again: Celery takes the chunk for done. Opening
and closing may both run twice, so nothing is lost by trying.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from cloner.errors import ClonerError
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CLOSE_BATCH, OPEN_BATCH, QueueNames
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.batches import BatchState, BatchStore
from cloner.state.connection import HASTE_S, connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry

LOOK_S = 5.0
"""Seconds between two looks. Lost is what seems so twice: a batch is written down before its message is sent."""


def watch_stalled_batches(settings: Settings) -> None:
    """Look again and again, for as long as this process lives."""
    redis = connect(settings.require_redis_url(), decode=False, retries=0, answer_s=HASTE_S)
    text = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    app = make_app(settings)
    seen: set[str] = set()
    while True:
        threading.Event().wait(LOOK_S)
        lost: set[str] = set()
        try:
            lost.update(stalled_batches(text, redis, settings))
            for batch_id in lost & seen:
                resume_batch(app, _batches(redis, settings), settings.queues, batch_id)
        except (RedisError, OperationalError) as error:
            # Redis is away: whoever works on a batch says so.
            log_event(Event.STALLED_BATCHES_NOT_READ, error=error)
        seen = lost - seen


def stalled_batches(text: Redis, redis: Redis, settings: Settings) -> Iterator[str]:
    """The batches that are open, and of which no message is in anybody's hand, nor any message in a queue where one of
    theirs might be. `text` decodes."""
    keys, queues, batches = RedisKeys(settings.fleet), settings.queues, _batches(redis, settings)
    open_ids = batches.open_ids(cancelled=True)
    if not open_ids:
        return
    hands = _in_hand(text, keys)
    everybodys = {worker.queue for worker in Registry(text, keys, settings.alive_s).workers()}
    everybodys |= {queues.shared_queue(), queues.collector_queue}
    if text.exists(*everybodys):
        return
    for batch_id in open_ids:
        if any(batch_id in message for message in hands):
            continue
        try:
            manifest = batches.manifest(batch_id)
        except ClonerError as error:
            log_event(Event.STALLED_BATCH_UNREADABLE, batch=batch_id, error=error.message)
            continue
        if manifest is None:
            continue
        own = {chunk.queue for chunk in manifest.chunks}
        # Its own queues too: their workers may be gone, and their messages wait for whoever takes them over.
        if not own or not text.exists(*own):
            yield batch_id


def resume_batch(app: Celery, batches: BatchStore, queues: QueueNames, batch_id: str) -> None:
    """Have a lost batch opened again, or closed if all of its chunks are finished."""
    try:
        progress = batches.progress(batch_id)
    except ClonerError as error:
        log_event(Event.STALLED_BATCH_NOT_RESUMED, batch=batch_id, error=error.message)
        return
    to_collector = {"queue": queues.collector_queue, "ignore_result": True}
    if progress.closed:
        return
    if progress.state is BatchState.RUNNING and progress.all_chunks_finished:
        log_event(Event.STALLED_BATCH_CLOSED, batch=batch_id)
        app.send_task(CLOSE_BATCH, args=([],), kwargs={"batch_id": batch_id}, **to_collector)
    else:
        log_event(Event.STALLED_BATCH_REOPENED, batch=batch_id)
        app.send_task(OPEN_BATCH, args=(batch_id,), **to_collector)


def _batches(redis: Redis, settings: Settings) -> BatchStore:
    return BatchStore(redis, RedisKeys(settings.fleet), settings.batch_ttl_s)


def _in_hand(text: Redis, keys: RedisKeys) -> list[str]:
    """What everybody in the fleet, dead or alive, has in hand, as Celery packs it: a batch's id stands in it."""
    held: list[str] = []
    for key in text.scan_iter(keys.unacked("*"), count=1000, _type="HASH"):
        held += map(str, text.hvals(str(key)))
    return held
