"""A submitted batch, wherever it was submitted from: its progress, its result, cancelling and retrying it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from cloner.batch import Batch, Redo
from cloner.client.assignment import AssignmentSummary, Strategy
from cloner.client.connection import FleetConnection
from cloner.client.liveness import Liveness
from cloner.client.parts import find_part, send_part
from cloner.errors import BatchBroken, BrokerUnreachable, UnknownBatch, UsageError
from cloner.events import Event
from cloner.logs import log_line
from cloner.protocol.messages import Manifest
from cloner.protocol.queries import PartRequest
from cloner.protocol.results import BatchResult
from cloner.state.damage import unpacking
from cloner.state.progress import Progress
from cloner.validation import first_error

MAX_OUTAGE_S = 600.0
"""Seconds that `wait` and `poll` tolerate an outage of Redis; the workers tolerate one, too."""

POLL_INTERVAL_S = 0.2
"""Seconds between two readings of a batch's progress."""


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
        """The name of the batch's file, with whether it is a redo or another part of that; empty if it has expired."""
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

        What Redis has forgotten of the batch, the fleet's collector has kept. Raises `UsageError` if the batch is not
        closed, if nothing failed, or if its references are lost; `UnknownBatch`, `BatchBroken`, `NoWorkers`,
        `OutputsTaken`, and `ClonerError` if no collector answers.
        """
        return self._send(find_part(self._connection, PartRequest(batch_id=self.id, failed=True)))

    def redo(
        self,
        segments: Iterable[int] = (),
        outputs: Iterable[str] = (),
        *,
        seed: int | None = None,
        check: Callable[[Manifest], None] | None = None,
    ) -> BatchHandle:
        """Generate segments of this batch, by index or output, once more with another seed: send them as a new batch,
        and return that.

        Their audio files are replaced when the new ones are there, and kept among the takes of the new batch. Each
        time, another seed is taken; with `seed`, one that follows from it. `check` is called with what is about to be
        sent, and may raise what refuses it. Raises what `retry` raises,
        `UsageError` for a segment that the batch does not have, and `WrongCheckpoint` if the fleet has another one by
        now.
        """
        try:
            request = PartRequest(batch_id=self.id, segments=list(segments), outputs=list(outputs))
            redo = Redo(seed=seed)
        except ValidationError as error:
            raise UsageError(first_error(error)) from None
        part = find_part(self._connection, request)
        return self._send(part.model_copy(update={"redo": redo}), check)

    def _send(self, part: Manifest, check: Callable[[Manifest], None] | None = None) -> BatchHandle:
        with self._connection.translate_redis_errors():
            name = self._connection.batches.submission(self.id).strategy
            strategy = _strategy(self.id, name) if name else Strategy.ROUND_ROBIN
            batch_id, assignments = send_part(self._connection, part, strategy, check)
        return BatchHandle(self._connection, batch_id, assignments)


def _strategy(batch_id: str, name: str) -> Strategy:
    with unpacking(batch_id):
        return Strategy(name)
