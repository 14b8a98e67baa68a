"""Removing what a fleet has left in Redis. A run's fleet is its own, so nobody comes back for any of it."""

from __future__ import annotations

from typing import cast

from redis import Redis

from cloner.state.keys import RedisKeys


def sweep(redis: Redis, keys: RedisKeys) -> None:
    """Remove every key of a fleet whose processes have all ended, and no other fleet's. `redis` must answer in bytes.

    What Celery keeps for all workers of a Redis together stays. Raises `RedisError`.
    """
    doomed: set[bytes | str] = set()
    for batch_id in cast("list[bytes]", redis.zrange(keys.batches, 0, -1)):
        chunks = int(redis.hget(keys.batch(batch_id.decode()), "chunks") or 0)
        doomed.update([*celery_results(batch_id.decode(), chunks), chord_marker(batch_id.decode())])
    # One pass over all keys; a fleet's name has neither "." nor ":", so the prefixes are exact.
    prefixes = (
        f"cloner:{keys.fleet}:",
        f"cloner.{keys.fleet}.",
        f"_kombu.binding.cloner.{keys.fleet}.",
        f"_kombu.binding_permanent.cloner.{keys.fleet}.",
    )
    for key in redis.scan_iter(f"*cloner[.:]{keys.fleet}[.:]*", count=1000):
        if key.startswith(tuple(prefix.encode() for prefix in prefixes)):
            doomed.add(key)
    if doomed:
        redis.delete(*doomed)


def celery_results(batch_id: str, chunks: int) -> list[str]:
    """Where Celery keeps what the batch's tasks returned and what its chord counts, by the ids that the collector gives
    them."""
    tasks = [f"celery-task-meta-{batch_id}.{task}" for task in (*range(chunks), "close")]
    return tasks + [f"celery-taskset-meta-{batch_id}{part}" for part in ("", ".d", ".j", ".s", ".t")]


def chord_marker(batch_id: str) -> str:
    """Where Celery notes for a few minutes that a chord is done, so that a chunk that comes again does not count."""
    return f"celery-taskset-meta-{batch_id}.c"
