"""Removing what a fleet has left in Redis. A run's fleet is its own, so nobody comes back for any of it."""

from __future__ import annotations

from typing import cast

from redis import Redis

from cloner.queues import Names


def sweep(redis: Redis, names: Names) -> None:
    """Remove every key of a fleet whose processes have all ended, and no other fleet's. `redis` must answer in bytes.

    What Celery keeps for all workers of a Redis together stays. Raises `RedisError`.
    """
    doomed: set[bytes | str] = set()
    for batch_id in cast("list[bytes]", redis.zrange(names.batches, 0, -1)):
        doomed.update(_celery_results(redis, names, batch_id.decode()))
    # One pass over all keys; a fleet's name has neither "." nor ":", so the prefixes are exact.
    prefixes = (
        f"cloner:{names.fleet}:",
        f"cloner.{names.fleet}.",
        f"_kombu.binding.cloner.{names.fleet}.",
        f"_kombu.binding_permanent.cloner.{names.fleet}.",
    )
    for key in redis.scan_iter(f"*cloner[.:]{names.fleet}[.:]*", count=1000):
        if key.startswith(tuple(prefix.encode() for prefix in prefixes)):
            doomed.add(key)
    if doomed:
        redis.delete(*doomed)


def _celery_results(redis: Redis, names: Names, batch_id: str) -> list[str]:
    """Where Celery keeps what the batch's tasks returned, by the ids that the collector gives them."""
    chunks = int(redis.hget(names.batch(batch_id), "chunks") or 0)
    tasks = [f"celery-task-meta-{batch_id}.{task}" for task in (*range(chunks), "close")]
    return tasks + [f"celery-taskset-meta-{batch_id}{part}" for part in ("", ".c", ".d", ".j", ".s", ".t")]
