"""A submitted batch, wherever it was submitted from: its progress, its result, cancelling and retrying it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cloner.batch import Batch, Reference, Segment, Speaker
from cloner.client.assignment import AssignmentSummary, Strategy
from cloner.client.connection import FleetConnection
from cloner.client.liveness import Liveness
from cloner.client.submit import send
from cloner.errors import BatchBroken, BrokerUnreachable, NoWorkers, UnknownBatch, UsageError
from cloner.events import Event
from cloner.logs import log_line
from cloner.protocol.messages import SpeakerRow
from cloner.protocol.results import BatchResult
from cloner.state.damage import unpacking
from cloner.state.progress import Progress

MAX_OUTAGE_S = 600.0
"""Seconds that `wait` and `poll` tolerate an outage of Redis; the workers tolerate one, too."""

POLL_INTERVAL_S = 0.2
"""Seconds between two readings of a batch's progress."""

SHOWN = 5
"""Most speakers that an error message names."""


class BatchHandle:
    """A submitted batch, wherever it was submitted from.

    Every method raises `BrokerUnreachable` if Redis cannot be used, and `Damaged` if what it holds cannot be read.
    """

    def __init__(
        self, connection: FleetConnection, batch_id: str, assignments: Sequence[AssignmentSummary] = ()
    ) -> None:
        self._connection = connection
        self.id = batch_id
        self._answered_at: float | None = None
        self.assignments = tuple(assignments)
        """What each worker gets; empty for a batch that another client submitted, or one on the shared queue."""

    def __repr__(self) -> str:
        return f"<BatchHandle {self.id}>"

    def assignment_lines(self, batch: Batch) -> list[str]:
        """Log lines that say how the batch is assigned to workers."""
        lines = [Event.SPEAKERS.line(speakers=len(batch.speakers))]
        if self.assignments:
            lines.append(Event.SPEAKER_ASSIGNMENT.line())
        return [*lines, *(assignment.line() for assignment in self.assignments)]

    def progress(self) -> Progress:
        """The batch's progress. Raises `UnknownBatch`."""
        with self._connection.translate_redis_errors():
            return self._connection.batches.progress(self.id)

    def source(self) -> str:
        """The name of the batch's file; empty if the batch has expired."""
        with self._connection.translate_redis_errors():
            return self._connection.batches.submission(self.id).source

    def poll(self) -> Progress | None:
        """The batch's progress; None during an outage of a Redis that has answered before, for up to `MAX_OUTAGE_S`.

        Raises `UnknownBatch`.
        """
        try:
            progress = self.progress()
        except BrokerUnreachable:
            if self._answered_at is None or time.monotonic() - self._answered_at > MAX_OUTAGE_S:
                raise
            return None
        self._answered_at = time.monotonic()
        return progress

    def iter_progress(self, on_warning: Callable[[str], object] | None = None) -> Iterator[Progress | None]:
        """What `poll` returns, every `POLL_INTERVAL_S`, until the batch is closed; the last progress is a closed one.

        `on_warning` gets a line when no worker or no collector is alive, and when one is again; by default it is
        logged. Raises `UnknownBatch`, and `BatchBroken` if the batch is cancelled and no process is left to close it.
        """
        on_warning = on_warning or log_line
        liveness = Liveness(self._connection)
        while True:
            progress = self.poll()
            yield progress
            if progress and progress.closed:
                return
            if progress:
                with suppress(BrokerUnreachable):  # the next poll raises it if the outage lasts
                    for line in liveness.check(progress):
                        on_warning(line)
            time.sleep(POLL_INTERVAL_S)

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_warning: Callable[[str], object] | None = None,
    ) -> BatchResult:
        """Wait until the batch is closed, and return its result. `on_warning` is as in `iter_progress`.

        Raises `TimeoutError` after `timeout` seconds, `UnknownBatch`, and `BatchBroken` if there will be no result.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for progress in self.iter_progress(on_warning):
            if progress and on_progress:
                on_progress(progress)
            if deadline is not None and not (progress and progress.closed) and time.monotonic() > deadline:
                raise TimeoutError(f"batch {self.id} is not finished after {timeout} s")
        return self.result()

    async def wait_async(self, timeout: float | None = None) -> BatchResult:
        """`wait`, for programs with an event loop, which goes on meanwhile."""
        return await asyncio.to_thread(self.wait, timeout)

    def result(self) -> BatchResult:
        """The result of the batch. Raises `UnknownBatch` if it is unknown or not closed yet, `BatchBroken`."""
        with self._connection.translate_redis_errors():
            result = self._connection.batches.result(self.id)
        if result is not None:
            return result
        progress = self.progress()
        if progress.error:
            raise BatchBroken(f"batch {self.id} is broken: {progress.error}")
        raise UnknownBatch(
            f"batch {self.id} has no result yet: {progress.finished} of {progress.total} segments finished"
        )

    def paths(self) -> dict[int, Path]:
        """The absolute path of each segment's audio, by segment, of those that were generated.

        It starts with this client's `Settings.out_dir`: the fleet may see the folder under another name. Raises as
        `result` does.
        """
        root = self._connection.settings.out_dir.absolute()
        return {segment: root / output for segment, output in self.result().results.items()}

    def cancel(self) -> None:
        """Have the workers stop this batch. Finished segments stay; the others are errors of the result.

        Raises `UnknownBatch`, and `UsageError` if the batch is closed.
        """
        if self.progress().closed:
            raise UsageError(f"batch {self.id} is finished; there is nothing to cancel")
        with self._connection.translate_redis_errors():
            self._connection.batches.cancel(self.id)

    def retry(self) -> BatchHandle:
        """Send what failed in this batch or was never generated as a new batch, and return that.

        Raises `UsageError` if it is not closed, if nothing failed, or if its references have expired; `UnknownBatch`,
        `BatchBroken`, `NoWorkers`, `OutputsTaken`.
        """
        if not self.progress().closed:
            raise UsageError(f"batch {self.id} is not finished: wait for it, or cancel it")
        errors = self.result().errors
        if not errors:
            raise UsageError(f"nothing of batch {self.id} failed: there is nothing to retry")
        with self._connection.translate_redis_errors():
            manifest = self._connection.batches.manifest(self.id)
            strategy = self._connection.batches.submission(self.id).strategy
        if manifest is None:
            raise UnknownBatch(f"the texts of batch {self.id} are no longer in Redis: {_AGAIN}")
        rows = [
            speaker.model_copy(update={"segments": failed})
            for speaker in manifest.speakers
            if (failed := [row for row in speaker.segments if row[0] in errors])
        ]
        with self._connection.translate_redis_errors():
            self._keep_references(rows)
            workers = self._connection.workers()
            if not workers:
                raise NoWorkers
            path = Path(manifest.path or manifest.source)
            batch = Batch(path, tuple(map(_speaker, rows)), manifest.generation, prefix=manifest.prefix, partial=True)
            batch_id, assignments = send(self._connection, batch, rows, workers, _strategy(self.id, strategy))
        return BatchHandle(self._connection, batch_id, assignments)

    def _keep_references(self, rows: Sequence[SpeakerRow]) -> None:
        """Renew the expiry of the speakers' references. Raises `UsageError` if one has expired."""
        expired = set(self._connection.references.renew(row.reference.digest for row in rows))
        lost = [row.id for row in rows if row.reference.digest in expired]
        if lost:
            some = ", ".join(lost[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
            raise UsageError(f"the references of {len(lost)} speakers ({some}) are no longer in Redis: {_AGAIN}")


_AGAIN = "submit the batch's file again; only what is missing is spoken"


def _strategy(batch_id: str, name: str) -> Strategy:
    with unpacking(batch_id):
        return Strategy(name)


def _speaker(row: SpeakerRow) -> Speaker:
    """The speaker of a manifest. Its reference is in Redis, so it names no files."""
    segments = tuple(Segment(index, text, output, seed=seed) for index, text, output, seed in row.segments)
    return Speaker(row.id, Reference(row.reference.kind, (), row.reference.text), segments)
