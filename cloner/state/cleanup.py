"""Removing the keys of a fleet from Redis. A `cloner run` has a fleet of its own, and removes it when it ends."""

from __future__ import annotations

from typing import cast

from redis import Redis

from cloner.state.keys import RedisKeys


def remove_fleet(redis: Redis, keys: RedisKeys) -> None:
    """Remove every key of a fleet whose processes have all ended. `redis` must not decode responses.

    Keys that Celery shares between all workers of a Redis stay. Raises `RedisError`.
    """
    keys_to_delete: set[bytes | str] = set()
    for batch_id in cast("list[bytes]", redis.zrange(keys.batches, 0, -1)):
        chunks = int(redis.hget(keys.batch(batch_id.decode()), "chunks") or 0)
        keys_to_delete.update([*celery_results(batch_id.decode(), chunks), chord_marker(batch_id.decode())])
    # One pass over all keys; a fleet's name has neither "." nor ":", so the prefixes are exact.
    prefixes = (
        f"cloner:{keys.fleet}:",
        f"cloner.{keys.fleet}.",
        f"_kombu.binding.cloner.{keys.fleet}.",
        f"_kombu.binding_permanent.cloner.{keys.fleet}.",
    )
    for key in redis.scan_iter(f"*cloner[.:]{keys.fleet}[.:]*", count=1000):
        if key.startswith(tuple(prefix.encode() for prefix in prefixes)):
            keys_to_delete.add(key)
    if keys_to_delete:
        redis.delete(*keys_to_delete)


def celery_results(batch_id: str, chunks: int) -> list[str]:
    """Celery's keys of the results of the batch's tasks and of its chord's count, by the task ids that the collector
    chooses."""
    tasks = [f"celery-task-meta-{batch_id}.{task}" for task in (*range(chunks), "close")]
    return tasks + [f"celery-taskset-meta-{batch_id}{part}" for part in ("", ".d", ".j", ".s", ".t")]


def chord_marker(batch_id: str) -> str:
    """Celery's note, kept for a few minutes, that a chord is done: a redelivered chunk does not count again."""
    return f"celery-taskset-meta-{batch_id}.c"
