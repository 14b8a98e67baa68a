"""Every name on the wire: tasks, queues and Redis keys. Nowhere else are they spelled.

Queue names carry the version of the wire format, so that workers of two versions can live on one Redis and each sees
only what it can read. They are built from the box's name in the settings, the card and a count, never from a host
name: they must outlive a restart and a container.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = 1
"""Version of the wire format. Raise it when a message changes in a way that an older worker cannot read."""

SPEAK_CHUNK = "cloner.speak_chunk"
OPEN_BATCH = "cloner.open_batch"
CLOSE_BATCH = "cloner.close_batch"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one fleet. Several fleets may share a Redis."""

    fleet: str

    def worker_queue(self, box: str, card: str, number: int) -> str:
        """Queue that only the `number`-th worker of `card` ("cpu", or the start of a GPU's UUID) on `box` reads."""
        return f"cloner.{self.fleet}.v{SCHEMA}.{box}.{card}.{number}"

    def shared_queue(self, schema: int = SCHEMA) -> str:
        """Queue that every worker of this wire version reads when its own is empty."""
        return f"cloner.{self.fleet}.v{schema}.shared"

    @property
    def collector_queue(self) -> str:
        """Queue of the CPU worker that opens and closes batches."""
        return f"cloner.{self.fleet}.v{SCHEMA}.collector"

    @property
    def workers(self) -> str:
        """Sorted set: worker name -> time of its last heartbeat (seconds since the epoch)."""
        return f"cloner:{self.fleet}:workers"

    @property
    def counts(self) -> str:
        """Hash: worker and what is counted -> how much of it that worker has done. For ever: see `counts.py`."""
        return f"cloner:{self.fleet}:counts"

    @property
    def cards(self) -> str:
        """Hash: card and box -> how full and how busy the card is, as its launcher last read it."""
        return f"cloner:{self.fleet}:cards"

    @property
    def batches(self) -> str:
        """Sorted set: batch id -> time of its submission."""
        return f"cloner:{self.fleet}:batches"

    def worker(self, name: str) -> str:
        """Hash: what is known about one worker."""
        return f"cloner:{self.fleet}:worker:{name}"

    def reference(self, digest: str) -> str:
        """String: a reference's bytes, under their content hash."""
        return f"cloner:{self.fleet}:reference:{digest}"

    def batch(self, batch_id: str) -> str:
        """Hash: state of a batch."""
        return f"cloner:{self.fleet}:batch:{batch_id}"

    def manifest(self, batch_id: str) -> str:
        """String: the whole batch as it was dealt, compressed."""
        return f"{self.batch(batch_id)}:manifest"

    def progress(self, batch_id: str) -> str:
        """Hash: chunk number -> what is finished of it. Absolute figures, so a chunk that runs twice counts once."""
        return f"{self.batch(batch_id)}:progress"

    def said(self, batch_id: str) -> str:
        """Set: log lines about a batch on the shared queue that some worker has said."""
        return f"{self.batch(batch_id)}:said"

    def result(self, batch_id: str) -> str:
        """String: the batch's result, compressed."""
        return f"{self.batch(batch_id)}:result"
