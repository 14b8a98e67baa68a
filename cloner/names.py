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
FIND_FINISHED = "cloner.find_finished"

PARENT, CHILD = "parent", "child"
"""The two processes of a worker or collector: Celery's own, and the one that runs the tasks."""


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

    @staticmethod
    def collector(box: str) -> str:
        """Name of a box's collector, as `WorkerInfo.name` is a worker's."""
        return f"collector@{box}"

    def unacked(self, holder: str) -> str:
        """Hash: delivery tag -> a message that the holder, a worker or a collector, has in hand, as kombu packs it."""
        return f"cloner:{self.fleet}:unacked:{holder}"

    def unacked_since(self, holder: str) -> str:
        """Sorted set: delivery tag -> time at which the holder took the message (kombu's "index")."""
        return f"{self.unacked(holder)}:since"

    def unacked_mutex(self, holder: str) -> str:
        """String: kombu's lock while it looks for messages that the holder has had for too long."""
        return f"{self.unacked(holder)}:mutex"

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
    def queues(self) -> str:
        """Hash: worker queue -> name of its worker. Stays when the worker goes, for messages may still be in it."""
        return f"cloner:{self.fleet}:queues"

    def box(self, box: str) -> str:
        """String: who runs the box's workers; expires when he does not say so again and again."""
        return f"cloner:{self.fleet}:box:{box}"

    def is_ours(self, queue: str) -> bool:
        """Whether the queue carries this version of the wire format."""
        return queue.startswith(f"cloner.{self.fleet}.v{SCHEMA}.")

    @property
    def pulses(self) -> str:
        """Hash: a process of a worker or collector -> its id and a count that grows for as long as it runs."""
        return f"cloner:{self.fleet}:pulses"

    def pulse(self, holder: str, part: str) -> str:
        """Field of `pulses`."""
        return f"{holder} {part}"

    @property
    def batches(self) -> str:
        """Sorted set: batch id -> time of its submission."""
        return f"cloner:{self.fleet}:batches"

    @property
    def collector_life(self) -> str:
        """String that is there while a collector is alive: it expires."""
        return f"cloner:{self.fleet}:collector"

    def question(self, number: str) -> str:
        """String: outputs that a client asks the collector about, compressed."""
        return f"cloner:{self.fleet}:question:{number}"

    def answer(self, number: str) -> str:
        """String: what the collector found, compressed."""
        return f"cloner:{self.fleet}:answer:{number}"

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
