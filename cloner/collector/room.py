"""Whether Redis has room for more chunks: what it has no memory for, it refuses, the heartbeats of workers as well."""

from __future__ import annotations

from typing import cast

from redis import Redis

from cloner.names import is_collector
from cloner.settings import Settings
from cloner.state.keys import RedisKeys

SHARE = 7 / 8
"""Part of Redis's memory (``maxmemory``) that chunks may fill: the rest is for heartbeats, results and new batches."""


def may_send(redis: Redis, settings: Settings) -> bool:
    """Whether a chunk may be sent now: Redis has room, or nothing of the fleet is under way, whose end would make some.

    `redis` must not decode responses. Raises `RedisError`.
    """
    memory = redis.info("memory")
    most = memory.get("maxmemory", 0)
    return not most or memory["used_memory"] < SHARE * most or not _is_anything_under_way(redis, settings)


def _is_anything_under_way(redis: Redis, settings: Settings) -> bool:
    """Whether a message for a worker or a reviewer is in a queue or in flight."""
    keys, queues = RedisKeys(settings.fleet), settings.queues
    consumers = [name.decode() for name in cast("set[bytes]", redis.smembers(keys.consumers))]
    places: list[bytes | str] = [keys.unacked(name) for name in consumers if not is_collector(name)]
    places += [queues.shared_queue(), queues.review_queue]
    return bool(redis.exists(*places, *redis.hkeys(keys.worker_queues)))
