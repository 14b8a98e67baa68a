"""Submitting batches to a fleet and following them, from Python.

client = Client("redis://:password@gpu-box:6379/0")
batch = client.submit("batch.json")
result = batch.wait()
print(result.generated, "of", result.total)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from cloner import queues
from cloner.app import make_app
from cloner.batch import Batch, Speaker
from cloner.batchfile import read_batch
from cloner.dealing import Assignment, deal
from cloner.errors import (
    BatchBroken,
    BrokerUnreachable,
    NoWorkers,
    UnknownBatch,
    UsageError,
    WrongCheckpoint,
    printable,
)
from cloner.fleet import Registry, WorkerInfo
from cloner.overlap import check_outputs
from cloner.plan import Strategy
from cloner.progress import Progress, read_progress
from cloner.redisconn import connect, reaching, server_time
from cloner.references import load_reference
from cloner.results import BatchResult
from cloner.settings import Settings, load_settings, redacted
from cloner.texts import shown
from cloner.wire import Manifest, ReferenceRow, SpeakerRow, is_batch_id

OUTAGE_S = 600.0
"""Seconds that who waits for a batch sits out an outage of Redis, as the workers do."""

POLL_S = 0.2
"""Seconds between two looks at a batch's progress."""


class BatchHandle:
    """A submitted batch, wherever it was submitted from.

    Whatever asks Redis raises `BrokerUnreachable` if that cannot be used.
    """

    def __init__(self, client: Client, batch_id: str, assignments: Sequence[Assignment] = ()) -> None:
        self._client = client
        self.id = batch_id
        self._answered: float | None = None
        self.assignments = tuple(assignments)
        """What each worker was dealt; empty for a batch that somebody else submitted, or one on the shared queue."""

    def lines(self, batch: Batch) -> list[str]:
        """How the batch was dealt, in the words that people grep for."""
        lines = [f"[Main] Speakers: {len(batch.speakers)}"]
        if self.assignments:
            lines.append("[Main] Speaker assignment:")
        return lines + [f"  {assignment}" for assignment in self.assignments]

    def progress(self) -> Progress:
        """How far the batch is. Raises `UnknownBatch`."""
        with self._client.reaching():
            return read_progress(self._client.redis, self._client.names, self.id)

    def look(self) -> Progress | None:
        """How far the batch is; None while a Redis that has answered before is away, for up to `OUTAGE_S`."""
        try:
            progress = self.progress()
        except BrokerUnreachable:
            if self._answered is None or time.monotonic() - self._answered > OUTAGE_S:
                raise
            return None
        self._answered = time.monotonic()
        return progress

    def follow(self) -> Iterator[Progress | None]:
        """What `look` sees, again and again, until the batch is closed; the last one says so."""
        while True:
            progress = self.look()
            yield progress
            if progress and progress.closed:
                return
            time.sleep(POLL_S)

    def wait(self, timeout: float | None = None, on_progress: Callable[[Progress], None] | None = None) -> BatchResult:
        """Wait until the batch is closed. Raises `TimeoutError` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for progress in self.follow():
            if progress and on_progress:
                on_progress(progress)
            if deadline is not None and not (progress and progress.closed) and time.monotonic() > deadline:
                raise TimeoutError(f"batch {self.id} is not finished after {timeout} s")
        return self.result()

    def result(self) -> BatchResult:
        """What came of the batch. Raises `UnknownBatch` if it is unknown or not closed yet, `BatchBroken`."""
        with self._client.reaching():
            data = self._client.blobs.get(self._client.names.result(self.id))
        if isinstance(data, bytes):
            return BatchResult.unpack(data)
        progress = self.progress()
        if progress.error:
            raise BatchBroken(f"batch {self.id} is broken: {progress.error}")
        raise UnknownBatch(
            f"batch {self.id} has no result yet: {progress.finished} of {progress.total} segments finished"
        )

    def cancel(self) -> None:
        """Have the workers stop speaking this batch. What is finished stays; the result says what was not spoken."""
        if self.progress().closed:
            raise UsageError(f"batch {self.id} is finished; there is nothing to cancel")
        with self._client.reaching():
            self._client.redis.hset(self._client.names.batch(self.id), "cancelled", "1")


class Client:
    """A fleet, seen through its Redis; the address is that of `CLONER_REDIS_URL` unless given.

    Whatever asks Redis raises `BrokerUnreachable` if that cannot be used.
    """

    def __init__(self, redis_url: str | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        if redis_url is not None:
            self.settings = self.settings.model_copy(update={"redis_url": redis_url})
        self._url = self.settings.require_redis_url()
        self.redis: Redis = connect(self._url)
        self.blobs: Redis = connect(self._url, decode=False)
        self._app = make_app(self.settings)
        self.names = self.settings.names
        self._registry = Registry(self.redis, self.names, self.settings.alive_s)

    def fleet(self) -> list[WorkerInfo]:
        """The workers that are alive, in the order in which they are dealt to."""
        with self.reaching():
            return self._registry.workers()

    def reaching(self) -> AbstractContextManager[None]:
        """Inside it, a Redis that cannot be used is `BrokerUnreachable`."""
        return reaching(self._url)

    def batch(self, batch_id: str) -> BatchHandle:
        """A batch that was submitted before. Raises `UnknownBatch` if no batch can be called so."""
        if not is_batch_id(batch_id):
            raise UnknownBatch(f"{shown(batch_id)} is no batch's id: ids are printed by `cloner submit`")
        return BatchHandle(self, batch_id)

    def submit(
        self,
        batch: Batch | Path | str,
        *,
        strategy: Strategy | str = Strategy.ROUND_ROBIN,
        references: Path | None = None,
    ) -> BatchHandle:
        """Deal a batch over the fleet and send it.

        Raises `UsageError`, `BadBatch`, `NoWorkers`, `WrongCheckpoint`, `BadReference` or `OutputsTaken` before
        anything is queued.
        """
        strategy = _strategy(strategy)
        if not isinstance(batch, Batch):
            root = self.settings.references_dir
            batch = read_batch(Path(batch), out_root=None, references=references, references_root=root)
        workers = self.fleet()
        if not workers:
            raise NoWorkers
        _check_checkpoint(batch, workers)
        with self.reaching():
            speakers = [self._upload(speaker) for speaker in batch.speakers]
            chunks, assignments = deal(batch, workers, strategy, self.names)
            manifest = Manifest(
                batch_id=_new_id(),
                source=printable(batch.source.name),
                submitted_at=server_time(self.redis),
                generation=batch.generation,
                engine=workers[0].engine,
                fingerprint=workers[0].fingerprint,
                speakers=speakers,
                chunks=chunks,
            )
            check_outputs(manifest, self.blobs, self.names)
            self._send(manifest, assignments, strategy)
        return BatchHandle(self, manifest.batch_id, assignments)

    def _upload(self, speaker: Speaker) -> SpeakerRow:
        """Put the speaker's reference under its content hash; each is read, sent and dropped before the next."""
        data = load_reference(speaker.reference)
        # Twice the batch's time: a reference must outlast the batch, however long that waits in its queue.
        self.blobs.set(self.names.reference(data.key), data.data, ex=2 * self.settings.batch_ttl_s)
        return SpeakerRow(
            id=speaker.id,
            reference=ReferenceRow(kind=data.kind, digest=data.key, text=data.text),
            segments=[(segment.index, segment.text, segment.output) for segment in speaker.segments],
        )

    def _send(self, manifest: Manifest, assignments: Sequence[Assignment], strategy: Strategy) -> None:
        """Write the batch down and send the one message that makes it be there."""
        batch_id, keep = manifest.batch_id, self.settings.batch_ttl_s
        state: dict[Any, Any] = {
            "state": "submitting",
            "source": manifest.source,
            "strategy": strategy,
            "submitted_at": manifest.submitted_at,
            "total": manifest.total,
            "speakers": len(manifest.speakers),
            "chunks": len(manifest.chunks),
        }
        with self.blobs.pipeline() as pipe:
            pipe.set(self.names.manifest(batch_id), manifest.pack(), ex=keep)
            pipe.hset(self.names.batch(batch_id), mapping=state)
            pipe.expire(self.names.batch(batch_id), keep)
            # An empty field, so that the hash is there to be given its expiry.
            pipe.hset(self.names.progress(batch_id), "", "[0, 0, 0, 0.0, false]")
            pipe.expire(self.names.progress(batch_id), keep)
            pipe.zadd(self.names.batches, {batch_id: manifest.submitted_at})
            pipe.zremrangebyscore(self.names.batches, "-inf", manifest.submitted_at - keep)
            pipe.execute()
        try:
            for number, assignment in enumerate(assignments):
                worker, speakers = assignment.worker.name, len(assignment.speakers)
                self._registry.assign(worker, f"{batch_id}/{number}", speakers, assignment.texts)
            self._app.send_task(
                queues.OPEN_BATCH, args=(batch_id,), queue=self.names.collector_queue, ignore_result=True
            )
        except BaseException as error:
            self._withdraw(batch_id)
            if isinstance(error, OperationalError):
                raise BrokerUnreachable(f"the batch could not be sent to {redacted(self._url)}: {error}") from error
            raise

    def _withdraw(self, batch_id: str) -> None:
        """Take back a batch that could not be sent: nobody would ever close it."""
        names = self.names
        with suppress(RedisError), self.blobs.pipeline() as pipe:  # away with Redis, it is no worse
            pipe.delete(names.batch(batch_id), names.manifest(batch_id), names.progress(batch_id))
            pipe.zrem(names.batches, batch_id)
            pipe.execute()


def _new_id() -> str:
    """A name that sorts by time and can be said aloud."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


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
