"""Submitting batches to a fleet and following them, from Python.

client = Client("redis://:password@gpu-box:6379/0")
batch = client.submit("batch.json")
result = batch.wait()
print(result.generated, "of", result.total)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cloner.batch import Batch
from cloner.client.assignment import Strategy, assign
from cloner.client.batch_handle import BatchHandle
from cloner.client.connection import FleetConnection
from cloner.client.estimate import Estimate, estimate
from cloner.client.queries import ask_collector
from cloner.client.submit import packed, send, upload
from cloner.errors import NoWorkers, UnknownBatch, UsageError, WrongCheckpoint
from cloner.input.batch_file import load_batch
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import is_batch_id
from cloner.settings import Settings, load_settings
from cloner.state.registry import WorkerInfo
from cloner.validation import shown

__all__ = ["BatchHandle", "Client"]


class Client:
    """A fleet, seen through its Redis; the address is that of `CLONER_REDIS_URL` unless given.

    Whatever asks Redis raises `BrokerUnreachable` if that cannot be used.
    """

    def __init__(self, redis_url: str | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        if redis_url is not None:
            self.settings = self.settings.model_copy(update={"redis_url": redis_url})
        self._link = FleetConnection(self.settings)
        self.redis = self._link.redis
        self.blobs = self._link.blobs
        self.queues = self._link.queues
        self.keys = self._link.keys

    def fleet(self) -> list[WorkerInfo]:
        """The workers that are alive, in the order in which they are dealt to."""
        return self._link.workers()

    def translate_redis_errors(self) -> AbstractContextManager[None]:
        """Inside it, a Redis that cannot be used is `BrokerUnreachable`."""
        return self._link.translate_redis_errors()

    def batch(self, batch_id: str) -> BatchHandle:
        """A batch that was submitted before. Raises `UnknownBatch` if no batch can be called so."""
        if not is_batch_id(batch_id):
            raise UnknownBatch(f"{shown(batch_id)} is no batch's id: ids are printed by `cloner submit`")
        return BatchHandle(self._link, batch_id)

    def submit(
        self,
        batch: Batch | Path | str,
        *,
        strategy: Strategy | str = Strategy.ROUND_ROBIN,
        references: Path | None = None,
    ) -> BatchHandle:
        """Deal a batch over the fleet and send it. Segments that are there from earlier batches are not spoken again.

        Raises `UsageError`, `BadBatch`, `NoWorkers`, `WrongCheckpoint`, `BadReference` or `OutputsTaken` before
        anything is queued.
        """
        strategy = _strategy(strategy)
        batch, workers = self._prepared(batch, references)
        with self.translate_redis_errors():
            rows = [upload(self._link, speaker) for speaker in batch.speakers]
            sent = send(self._link, batch, rows, workers, strategy)
        return BatchHandle(self._link, *sent)

    def plan(
        self,
        batch: Batch | Path | str,
        *,
        strategy: Strategy | str = Strategy.ROUND_ROBIN,
        references: Path | None = None,
    ) -> Estimate:
        """What `submit` would have spoken, and how long that would take. Nothing is queued or written.

        The fleet's collector looks into the output folder. Raises what `submit` raises, and `ClonerError` where it
        does not answer.
        """
        strategy = _strategy(strategy)
        batch, workers = self._prepared(batch, references)
        rows = [packed(speaker)[0] for speaker in batch.speakers]
        wanted = wanted_outputs(rows, batch.generation, workers[0].engine, workers[0].fingerprint)
        there = ask_collector(self._link, wanted)
        chunks, _ = assign(batch, workers, strategy, self.queues)
        return estimate(batch, there.finished, there.changed, chunks, workers)

    def _prepared(self, batch: Batch | Path | str, references: Path | None) -> tuple[Batch, list[WorkerInfo]]:
        """The batch as values, and the workers that can speak it."""
        batch = load_batch(batch, self.settings, references=references)
        workers = self.fleet()
        if not workers:
            raise NoWorkers
        _check_checkpoint(batch, workers)
        return batch, workers


def _strategy(name: Strategy | str) -> Strategy:
    try:
        return Strategy(name)
    except ValueError:
        raise UsageError(f"{name!r} is no strategy: give {', '.join(Strategy)}") from None


def _check_checkpoint(batch: Batch, workers: Sequence[WorkerInfo]) -> None:
    """Host and container see the checkpoint under different paths: the folder's own name must agree."""
    if batch.checkpoint_dir is None:
        return
    wanted = Path(batch.checkpoint_dir).name
    for worker in workers:
        if worker.checkpoint != wanted:
            raise WrongCheckpoint(
                f"the batch asks for checkpoint {wanted!r}, but worker {worker.name} has loaded {worker.checkpoint!r}: "
                "take checkpoint_dir out of the batch, or start the fleet with CLONER_CHECKPOINT_DIR set to it"
            )
