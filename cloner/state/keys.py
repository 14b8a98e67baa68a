"""Every Redis key of a fleet. Nowhere else is one spelled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """The keys of one fleet. Several fleets may share a Redis."""

    fleet: str

    @property
    def workers(self) -> str:
        """Sorted set: worker name -> time of its last heartbeat, seconds since the epoch."""
        return self._key("workers")

    def worker(self, name: str) -> str:
        """Hash: the fields of `registry.WorkerInfo`."""
        return self._key(f"worker:{name}")

    @property
    def reviewers(self) -> str:
        """Sorted set: reviewer name -> time of its last heartbeat, seconds since the epoch."""
        return self._key("reviewers")

    def reviewer(self, name: str) -> str:
        """Hash: the fields of `registry.ReviewerInfo`."""
        return self._key(f"reviewer:{name}")

    @property
    def worker_queues(self) -> str:
        """Hash: worker queue -> name of its worker. A queue stays when its worker goes: it may hold messages. See
        `gone.py`."""
        return self._key("worker_queues")

    @property
    def process_heartbeats(self) -> str:
        """Hash: a process of a worker, collector or reviewer -> its process id and a count that grows while it runs."""
        return self._key("process_heartbeats")

    @staticmethod
    def process_heartbeat(consumer: str, part: str) -> str:
        """Field of `process_heartbeats`; `part` is `names.PARENT` or `names.CHILD`."""
        return f"{consumer} {part}"

    @property
    def collector_heartbeat(self) -> str:
        """String: the collector that sent the last heartbeat; expires, and is removed when that one stops."""
        return self._key("collector")

    def box_lease(self, box: str) -> str:
        """String: the launcher that owns the box; expires unless renewed."""
        return self._key(f"box:{box}")

    def box_launchers(self, box: str) -> str:
        """Set: leases of the box's launchers that have not ended in order, and may have left processes."""
        return f"{self.box_lease(box)}:launchers"

    @property
    def absent(self) -> str:
        """List that never exists: idle consumers block on it, and a write to it that needs it to exist tells whether
        the server takes any."""
        return self._key("absent")

    @property
    def consumers(self) -> str:
        """Set: workers, collectors and reviewers that have taken a message. They may have some still: see `gone.py`."""
        return self._key("consumers")

    @property
    def gone(self) -> str:
        """Sorted set: a consumer that is gone -> since when, seconds since the epoch."""
        return self._key("gone")

    def unacked(self, consumer: str) -> str:
        """Hash: delivery tag -> a message that the consumer (a worker, collector or reviewer) has not acknowledged, as
        kombu packs it."""
        return self._key(f"unacked:{consumer}")

    def unacked_since(self, consumer: str) -> str:
        """Sorted set: delivery tag -> time at which the consumer fetched the message (kombu's "index")."""
        return f"{self.unacked(consumer)}:since"

    def open_attempts(self, by: str) -> str:
        """Hash: batch id -> attempts to open or close it that have not ended, `by` a collector."""
        return self._key(f"open_attempts:{by}")

    @property
    def review_attempts(self) -> str:
        """Hash: review task's id -> reviewers' attempts at it that have not ended."""
        return self._key("review_attempts")

    @property
    def reviews_under_way(self) -> str:
        """Hash: reviewer name -> id of the task on which it works."""
        return self._key("reviews_under_way")

    @property
    def dead_letters(self) -> str:
        """Stream: messages that are given to no process any more."""
        return self._key("dead_letters")

    @property
    def counters(self) -> str:
        """Hash: worker and counter -> its value. Never expires: see `counters.py`."""
        return self._key("counters")

    @property
    def gpu_usage(self) -> str:
        """Hash: GPU and box -> memory and utilisation, as the box's launcher last read them."""
        return self._key("gpu_usage")

    @property
    def batches(self) -> str:
        """Sorted set: batch id -> time of its submission."""
        return self._key("batches")

    def batch(self, batch_id: str) -> str:
        """Hash: state of a batch."""
        return self._key(f"batch:{batch_id}")

    def manifest(self, batch_id: str) -> str:
        """String: the whole batch with its chunks, compressed."""
        return f"{self.batch(batch_id)}:manifest"

    def progress(self, batch_id: str) -> str:
        """Hash: chunk number -> its `batches.ChunkProgress`. Absolute counts, so a chunk that runs twice counts
        once."""
        return f"{self.batch(batch_id)}:progress"

    def result(self, batch_id: str) -> str:
        """String: the batch's result, compressed."""
        return f"{self.batch(batch_id)}:result"

    def reference(self, digest: str) -> str:
        """String: a reference's bytes, under their content hash."""
        return self._key(f"reference:{digest}")

    def _key(self, rest: str) -> str:
        return f"cloner:{self.fleet}:{rest}"
