"""Every name on the wire: queues, tasks and Redis keys. Nowhere else are they spelled.

Queue names carry the version of the wire format, so that workers of two versions can live on one
Redis and each sees only what it can read. They are built from the box's name in the settings, the card
and a count, never from a host name: they must outlive a restart and a container.
"""

from __future__ import annotations

SCHEMA = 1
"""Version of the wire format. Raise it when a message changes in a way that an older worker cannot read."""

SPEAK_CHUNK = "cloner.speak_chunk"
OPEN_BATCH = "cloner.open_batch"
CLOSE_BATCH = "cloner.close_batch"
BATCH_FAILED = "cloner.batch_failed"

WORKERS = "cloner:workers"
"""Sorted set: worker name -> time of its last heartbeat (seconds since the epoch)."""

BATCHES = "cloner:batches"
"""Sorted set: batch id -> time of its submission."""


def worker_queue(box: str, card: str, number: int) -> str:
    """Queue that only the `number`-th worker of `card` ("cpu", or the start of a GPU's UUID) on `box` reads."""
    return f"cloner.v{SCHEMA}.{box}.{card}.{number}"


def shared_queue(schema: int = SCHEMA) -> str:
    """Queue that every worker of this wire version reads when its own is empty."""
    return f"cloner.v{schema}.shared"


def collector_queue() -> str:
    """Queue of the CPU worker that opens and closes batches."""
    return f"cloner.v{SCHEMA}.collector"


def worker_key(name: str) -> str:
    """Hash: what is known about one worker."""
    return f"cloner:worker:{name}"


def reference_key(digest: str) -> str:
    """String: a reference's bytes, under their content hash."""
    return f"cloner:reference:{digest}"


def batch_key(batch_id: str) -> str:
    """Hash: state of a batch."""
    return f"cloner:batch:{batch_id}"


def manifest_key(batch_id: str) -> str:
    """String: the whole batch as it was dealt, compressed."""
    return f"cloner:batch:{batch_id}:manifest"


def progress_key(batch_id: str) -> str:
    """Hash: chunk number -> what is finished of it. Absolute figures, so a chunk that runs twice counts once."""
    return f"cloner:batch:{batch_id}:progress"


def result_key(batch_id: str) -> str:
    """String: the batch's result, compressed."""
    return f"cloner:batch:{batch_id}:result"
