"""Removing the keys of a fleet from Redis. A `cloner run` has a fleet of its own, and removes it when it ends."""

from __future__ import annotations

from typing import cast

from redis import Redis

from cloner.state.keys import RedisKeys
from cloner.state.progress import MOST_REVIEWS, Round


def remove_fleet(redis: Redis, keys: RedisKeys) -> None:
    """Remove every key of a fleet whose processes have all ended. `redis` must not decode responses.

    Keys that Celery shares between all workers of a Redis stay. Raises `RedisError`.
    """
    keys_to_delete: set[bytes | str] = set()
    for batch_id in cast("list[bytes]", redis.zrange(keys.batches, 0, -1)):
        fields = redis.hmget(keys.batch(batch_id.decode()), "chunks", "round")
        chunks, packed = cast("list[bytes | None]", fields)
        last = Round.unpack(packed) if packed else Round()
        for number in range(last.number + 1):
            chord = chord_id(batch_id.decode(), number)
            keys_to_delete.update([*celery_results(chord, int(chunks or 0)), chord_marker(chord)])
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


def chord_id(batch_id: str, round_number: int) -> str:
    """Id of the chord of one round of a batch. Its tasks' ids follow from it: chunk 7's is ``<chord>.7``."""
    return f"{batch_id}.r{round_number}" if round_number else batch_id


def celery_results(chord: str, chunks: int) -> list[str]:
    """Celery's keys of the results of a chord's tasks and of its count, by the task ids that the collector chooses.

    `chunks` is how many the batch has.
    """
    tasks = [f"celery-task-meta-{chord}.{task}" for task in (*range(max(chunks, MOST_REVIEWS)), "close")]
    return tasks + [f"celery-taskset-meta-{chord}{part}" for part in ("", ".d", ".j", ".s", ".t")]


def chord_marker(chord: str) -> str:
    """Celery's note, kept for a few minutes, that a chord is done: a redelivered chunk does not count again."""
    return f"celery-taskset-meta-{chord}.c"
