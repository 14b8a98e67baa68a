"""Reads the state of a fleet from Redis: its workers, also those that are gone, its newest batches, its queues."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from redis import Redis

from cloner.checks.catalogue import CHECKS
from cloner.engine.base import CODEC_FAILED
from cloner.errors import Damaged
from cloner.review.judge import REVIEW_CHECKS
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import server_time
from cloner.state.damage import pass_over, reply_or
from cloner.state.dead_letters import DeadLetter, DeadLetters
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from cloner.state.progress import Progress
from cloner.state.registry import Registry, WorkerInfo

CHECK_NAMES = (*(kind.name for kind in CHECKS), CODEC_FAILED, *(kind.name for kind in REVIEW_CHECKS))
"""What attempts fail: all checks of takes, those by models included, and an error of the codec."""

GONE = "gone"
"""The state of a registered worker whose heartbeats have stopped."""


@dataclass(frozen=True)
class WorkerSnapshot:
    """A worker as its registration, its heartbeats and its GPU's usage describe it."""

    info: WorkerInfo
    silent_s: float
    """Seconds since its last heartbeat."""
    gone: bool
    gpu_usage: GpuUsage | None

    @property
    def state(self) -> str:
        return GONE if self.gone else str(self.info.state)

    @property
    def slots_used(self) -> int:
        """Segments in flight, at most the number of slots: a finished segment counts until its codec stage ends."""
        return 0 if self.gone else min(self.info.slots_used, self.info.slots)

    @property
    def frames_s(self) -> float:
        return 0.0 if self.gone else self.info.frames_s


class FleetReader:
    """Reads a fleet's state. `redis` must decode responses; a worker is gone `CLONER_ALIVE_S` after its last beat."""

    def __init__(self, settings: Settings, redis: Redis, batches: BatchStore) -> None:
        self._redis = redis
        self._batches = batches
        keys = RedisKeys(settings.fleet)
        self._registry = Registry(redis, keys, settings.alive_s)
        self._gpu_usage = GpuUsageTable(redis, keys)
        self._dead_letters = DeadLetters(redis, keys)
        self._queues = settings.queues
        self._alive_s = settings.alive_s

    def now(self) -> float:
        """Seconds since the epoch, by the server's clock."""
        return server_time(self._redis)

    def workers(self) -> list[WorkerSnapshot]:
        """All registered workers, ordered by box and index."""
        usage = self._gpu_usage.read(self._alive_s)
        return [
            WorkerSnapshot(info, silent_s, silent_s > self._alive_s, usage.get((info.box, info.card)))
            for info, silent_s in self._registry.all_workers()
        ]

    def batches(self, newest: int) -> list[str]:
        """Ids of the newest batches, the last one submitted first."""
        return self._batches.newest(newest)

    def progress(self, batch_ids: list[str], known: Container[str] = ()) -> dict[str, Progress]:
        """The progress of each batch that is not in `known`, in one round trip. Expired and damaged batches are left
        out, so that one of them does not hide the others."""
        progress = {}
        wanted = [batch_id for batch_id in batch_ids if batch_id not in known]
        for batch_id, found in zip(wanted, self._batches.progress_of_each(wanted), strict=True):
            if isinstance(found, Progress):
                progress[batch_id] = found
            elif isinstance(found, Damaged):
                pass_over(f"batch {batch_id}", found.message)
        return progress

    def dead_letters(self) -> list[DeadLetter]:
        """The messages that are given to no process any more, the newest first. Raises `Damaged`."""
        return self._dead_letters.newest_first()

    def queue_lengths(self, workers: list[WorkerSnapshot]) -> dict[str, int]:
        """Queue -> number of messages that no process has taken."""
        queues = {worker.info.queue for worker in workers}
        # Queues of workers that were removed may still hold messages.
        queues.update(self._registry.worker_queues())
        queues.update((self._queues.shared_queue(), self._queues.collector_queue, self._queues.review_queue))
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in sorted(queues):
                pipe.llen(queue)
            lengths = pipe.execute(raise_on_error=False)
        return {queue: reply_or(0, queue, length) for queue, length in zip(sorted(queues), lengths, strict=True)}
