"""Parts of closed batches that are sent once more: what failed, or single segments as other takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cloner.batch import Batch, Reference, Segment, Speaker
from cloner.client.assignment import AssignmentSummary, Strategy
from cloner.client.connection import FleetConnection
from cloner.client.queries import ask_for_part
from cloner.client.submit import send
from cloner.errors import BatchBroken, NoWorkers, UnknownBatch, UsageError, WrongCheckpoint
from cloner.protocol.messages import Manifest, SpeakerRow
from cloner.protocol.queries import PartRequest
from cloner.protocol.references import SUBMIT_AGAIN, lost_references
from cloner.state.registry import WorkerInfo


def find_part(connection: FleetConnection, request: PartRequest) -> Manifest:
    """The part of a closed batch, whose references are in Redis: by what Redis has of it, else by what the fleet's
    collector has kept.

    Raises `UnknownBatch`, `UsageError`, `BatchBroken`, `BrokerUnreachable`, and `ClonerError` if no collector answers.
    """
    try:
        return _part_in_redis(connection, request)
    except _Expired as expired:
        with connection.translate_redis_errors():
            alive = connection.registry.collector_is_alive()
        if not alive:
            raise expired.error from None
        return ask_for_part(connection, request)


class _Expired(Exception):
    """Redis has not all of the part; `error` says so where nothing else has it."""

    def __init__(self, error: UsageError) -> None:
        self.error = error


def _part_in_redis(connection: FleetConnection, request: PartRequest) -> Manifest:
    batch_id = request.batch_id
    with connection.translate_redis_errors():
        try:
            progress = connection.batches.progress(batch_id)
        except UnknownBatch as error:
            raise _Expired(error) from None
        if not progress.closed:
            raise UsageError(f"batch {batch_id} is not finished: wait for it, or cancel it")
        result = connection.batches.result(batch_id) if request.failed else None
        if request.failed and result is None and progress.error:
            raise BatchBroken(f"batch {batch_id} is broken: {progress.error}")
        manifest = connection.batches.manifest(batch_id)
        if manifest is None or (request.failed and result is None):
            raise _Expired(UnknownBatch(f"the texts of batch {batch_id} are no longer in Redis: {SUBMIT_AGAIN}"))
        if result and result.errors and manifest.redo:
            # Another retry of it may have replaced what failed: the records say so, and nothing in Redis.
            raise _Expired(
                UsageError(
                    f"batch {batch_id} is a redo, and the collector, which knows of later takes, is not alive:"
                    " start the fleet with `launcher up`"
                )
            )
        part = request.choose(manifest.part, result.errors if result else ())
        expired = set(connection.references.renew(row.reference.digest for row in part.speakers))
    if lost := [row.id for row in part.speakers if row.reference.digest in expired]:
        raise _Expired(lost_references(lost, "are no longer in Redis"))
    return part


def send_part(
    connection: FleetConnection, part: Manifest, strategy: Strategy, check: Callable[[Manifest], None] | None = None
) -> tuple[str, list[AssignmentSummary]]:
    """Send a part whose references are in Redis as a batch of its own; returns its id and what each worker gets.

    `check` is as in `send`. Raises `NoWorkers`, `WrongCheckpoint`, `OutputsTaken`, `BrokerUnreachable`, `RedisError`.
    """
    workers = connection.workers()
    if not workers:
        raise NoWorkers
    if part.redo:
        _check_engine(part, workers[0])
    return send(connection, batch_of(part), part.speakers, workers, strategy, check=check)


def batch_of(part: Manifest) -> Batch:
    """The part as a batch."""
    ids = dict(part.ids)
    return Batch(
        source=Path(part.path or part.source),
        speakers=tuple(_speaker(row, ids) for row in part.speakers),
        generation=part.generation,
        audio=part.audio,
        checkpoint_dir=part.checkpoint_dir or None,
        prefix=part.prefix,
        partial=True,
        redo=part.redo,
        review=part.review,
    )


def _check_engine(part: Manifest, worker: WorkerInfo) -> None:
    """Raise `WrongCheckpoint` if the worker would not speak as the batch was spoken."""
    if (part.engine, part.fingerprint) != (worker.engine, worker.fingerprint):
        raise WrongCheckpoint(
            f"batch {part.batch_id} was spoken by engine {part.engine} with the checkpoint {part.fingerprint}, and"
            f" worker {worker.name} has engine {worker.engine} and checkpoint {worker.fingerprint}: a take would not"
            " fit the others; use the same, or submit the batch's file again"
        )


def _speaker(row: SpeakerRow, ids: dict[int, str]) -> Speaker:
    """The speaker of a manifest. Its reference is in Redis, so it names no files."""
    segments = tuple(
        Segment(index, text, output, ids.get(index), seed, row.language_of(index))
        for index, text, output, seed in row.segments
    )
    return Speaker(row.id, Reference(row.reference.kind, (), row.reference.text), segments)
