"""Submitting batches to a fleet, from Python.

client = Client("redis://:password@gpu-box:6379/0")
batch = client.submit("batch.json")
result = batch.wait()
print(result.generated, "of", result.total)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from cloner.batch import Batch, Review, SpeechOptions
from cloner.client.assignment import Strategy, assign
from cloner.client.batch_handle import BatchHandle
from cloner.client.causes import find_causes
from cloner.client.connection import FleetConnection
from cloner.client.estimate import Estimate, estimate
from cloner.client.parts import send_part
from cloner.client.queries import ask_collector
from cloner.client.submit import pack_speakers, send
from cloner.client.texts import warn_of_references
from cloner.errors import Damaged, NoWorkers, UnknownBatch, UsageError, WrongCheckpoint
from cloner.input.batch_file import load_batch
from cloner.input.review import checked_review
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.fields import is_batch_id
from cloner.protocol.messages import Manifest, SpeakerRow
from cloner.settings import Settings, load_settings
from cloner.state.progress import Progress
from cloner.state.registry import ReviewerInfo, WorkerInfo
from cloner.validation import name_flaw, output_flaw, shown

__all__ = ["BatchHandle", "Client"]


class Client:
    """A fleet, reached through its Redis. `redis_url` is by default that of the settings, `CLONER_REDIS_URL`.

    Raises `BadSetting` if there is no address or a setting is bad. Every method but `batch` raises `BrokerUnreachable`
    if Redis cannot be used.
    """

    def __init__(self, redis_url: str | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        if redis_url is not None:
            self.settings = self.settings.model_copy(update={"redis_url": redis_url})
        self._connection = FleetConnection(self.settings)
        self.redis = self._connection.redis
        self.blobs = self._connection.blobs
        self.queues = self._connection.queues
        self.keys = self._connection.keys

    def fleet(self) -> list[WorkerInfo]:
        """The workers that are alive, in the order of assignment."""
        return self._connection.workers()

    def counts(self) -> dict[str, dict[str, float]]:
        """What each worker has counted since the fleet's first start, by its name, as `state/counters.py` names it."""
        return self._connection.counts()

    def reviewers(self) -> list[ReviewerInfo]:
        """The reviewers that are alive, by name."""
        return self._connection.reviewers()

    def translate_redis_errors(self) -> AbstractContextManager[None]:
        """A context in which a Redis that cannot be used raises `BrokerUnreachable`."""
        return self._connection.translate_redis_errors()

    def batch(self, batch_id: str) -> BatchHandle:
        """A batch that was submitted before, not looked up yet. Raises `UnknownBatch` if that cannot be an id."""
        if not is_batch_id(batch_id):
            raise UnknownBatch(f"{shown(batch_id)} is no batch's id: ids are printed by `cloner submit`")
        return BatchHandle(self._connection, batch_id)

    def batches(self, most: int = 20) -> list[BatchHandle]:
        """The fleet's batches, the last one submitted first, at most so many; they are listed until they expire."""
        with self.translate_redis_errors():
            ids = self._connection.batches.newest(most)
        return [BatchHandle(self._connection, batch_id) for batch_id in ids]

    def progress(self, batches: Sequence[BatchHandle]) -> list[Progress | UnknownBatch | Damaged]:
        """The progress of each of some batches, or why it is not known, in one round trip."""
        with self.translate_redis_errors():
            return self._connection.batches.progress_of_each([batch.id for batch in batches])

    def submit(  # noqa: PLR0913 - one parameter an option
        self,
        batch: Batch | Path | str,
        *,
        strategy: Strategy | str = Strategy.ROUND_ROBIN,
        references: Path | None = None,
        prefix: str | None = None,
        overwrite: bool = False,
        prune: bool = False,
        review: Review | None = None,
        check: Callable[[Manifest], None] | None = None,
    ) -> BatchHandle:
        """Assign a batch, or the batch in a file, to the fleet's workers and send it.

        Segments that earlier batches have generated are not generated again. `references` is a folder of references,
        ``<speaker_id>/*.wav`` with ``.lab``. The outputs lie in the folder `prefix` under the fleet's output root, by
        default one with the name of the batch's file without its ending; an empty prefix is no folder. With
        `overwrite`, files that no version of the batch has written are replaced, else the fleet refuses the batch.
        With `prune`, files of its earlier versions that it does not name are removed once all is generated. `review`
        says which takes reviewers hear: "none", "suspects", "all" or ``{"sample": 0.05}``; by default it is what the
        batch says, else suspects where a reviewer is alive. `check` may refuse the batch, too, before anything is
        queued. So do `UsageError`, `BadBatch`, `NoWorkers`, `WrongCheckpoint`, `BadReference` and `OutputsTaken`, which
        are raised.
        """
        strategy = _strategy(strategy)
        batch, workers = self._load(batch, references, prefix)
        batch = replace(batch, overwrite=batch.overwrite or overwrite, prune=batch.prune or prune)
        batch = replace(batch, review=batch.review if review is None else checked_review(review))
        with self.translate_redis_errors():
            rows: list[SpeakerRow] = []
            self._connection.references.put_all(_references(pack_speakers(batch), rows))
            batch_id, assignments = send(self._connection, batch, rows, workers, strategy, check=check)
        return BatchHandle(self._connection, batch_id, assignments)

    def submit_part(self, part: Manifest, check: Callable[[Manifest], None] | None = None) -> BatchHandle:
        """Send a part of a batch whose references are in Redis; `check` is as in `submit`. Raises what
        `BatchHandle.redo` raises."""
        with self.translate_redis_errors():
            batch_id, assignments = send_part(self._connection, part, Strategy.ROUND_ROBIN, check)
        return BatchHandle(self._connection, batch_id, assignments)

    def plan(
        self,
        batch: Batch | Path | str,
        *,
        strategy: Strategy | str = Strategy.ROUND_ROBIN,
        references: Path | None = None,
        prefix: str | None = None,
    ) -> Estimate:
        """What `submit` would have the fleet generate, and how long that would take. Nothing is queued or generated.

        The fleet's collector reads the output folder. Raises what `submit` raises but `OutputsTaken`, and `ClonerError`
        if no collector answers.
        """
        strategy = _strategy(strategy)
        batch, workers = self._load(batch, references, prefix)
        rows = [row for row, _ in pack_speakers(batch)]
        worker = workers[0]
        options = SpeechOptions(
            generation=batch.generation, audio=batch.audio, engine=worker.engine, fingerprint=worker.fingerprint
        )
        found = ask_collector(self._connection, wanted_outputs(rows, options))
        causes = find_causes(
            batch,
            rows,
            options,
            earlier=found.earlier,
            finished=found.finished,
            find=lambda others: ask_collector(self._connection, others).finished,
        )
        chunks, _ = assign(batch, workers, strategy, self.queues)
        return replace(estimate(batch, found.finished, found.changed, chunks, workers), causes=causes)

    def _load(
        self, batch: Batch | Path | str, references: Path | None, prefix: str | None
    ) -> tuple[Batch, list[WorkerInfo]]:
        """The batch with its outputs under the prefix, and the workers that are to generate it."""
        loaded = load_batch(batch, self.settings, references=references, prefix=prefix)
        if loaded is not batch:
            warn_of_references(loaded)
        batch = _under(loaded, prefix)
        workers = self.fleet()
        if not workers:
            raise NoWorkers
        _check_checkpoint(batch, workers)
        return batch, workers


def _references(packed: Iterable[tuple[SpeakerRow, bytes]], rows: list[SpeakerRow]) -> Iterator[tuple[str, bytes]]:
    """The references of packed speakers by digest; the speakers' rows are added to `rows` on the way."""
    for row, data in packed:
        rows.append(row)
        yield row.reference.digest, data


def _strategy(name: Strategy | str) -> Strategy:
    try:
        return Strategy(name)
    except ValueError:
        raise UsageError(f"{name!r} is no strategy: give {', '.join(Strategy)}") from None


def _under(batch: Batch, prefix: str | None) -> Batch:
    """The batch with its outputs in the folder `prefix`, by default of its file's name. Raises `UsageError`."""
    folder = batch.source.stem if prefix is None else prefix
    if not folder and prefix is not None:
        return batch
    outputs = (segment.output for speaker in batch.speakers for segment in speaker.segments)
    longest = f"{folder}/{max(outputs, key=lambda output: len(output.encode()), default='0.wav')}"
    found = output_flaw(longest)
    if flaw := found[0] if found else name_flaw(longest):
        raise UsageError(
            f"the output {shown(longest)} {flaw}: give the name of a folder under the fleet's output root with --prefix"
        )
    return batch.under(folder)


def _check_checkpoint(batch: Batch, workers: Sequence[WorkerInfo]) -> None:
    """Raise `WrongCheckpoint` if the batch names another checkpoint than a worker's.

    Host and container see it under different paths, so only the folder's own name is compared.
    """
    if batch.checkpoint_dir is None:
        return
    wanted = Path(batch.checkpoint_dir).name
    for worker in workers:
        if worker.checkpoint != wanted:
            raise WrongCheckpoint(
                f"the batch asks for checkpoint {wanted!r}, but worker {worker.name} has loaded {worker.checkpoint!r}: "
                "take checkpoint_dir out of the batch, or start the fleet with CLONER_CHECKPOINT_DIR set to it"
            )
