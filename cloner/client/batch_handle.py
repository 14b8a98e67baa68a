"""A submitted batch, from anywhere: how far it is, what came of it, and what else to do with it."""

from __future__ import annotations

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
from cloner.state.batches import Progress

OUTAGE_S = 600.0
"""Seconds that who waits for a batch sits out an outage of Redis, as the workers do."""

POLL_S = 0.2
"""Seconds between two looks at a batch's progress."""

SHOWN = 5
"""Speakers that a refusal names."""


class BatchHandle:
    """A submitted batch, wherever it was submitted from.

    Whatever asks Redis raises `BrokerUnreachable` if that cannot be used.
    """

    def __init__(self, link: FleetConnection, batch_id: str, assignments: Sequence[AssignmentSummary] = ()) -> None:
        self._link = link
        self.id = batch_id
        self._answered: float | None = None
        self.assignments = tuple(assignments)
        """What each worker was dealt; empty for a batch that somebody else submitted, or one on the shared queue."""

    def lines(self, batch: Batch) -> list[str]:
        """How the batch was dealt, in the words that people grep for."""
        lines = [Event.SPEAKERS.line(speakers=len(batch.speakers))]
        if self.assignments:
            lines.append(Event.SPEAKER_ASSIGNMENT.line())
        return [*lines, *(assignment.line() for assignment in self.assignments)]

    def progress(self) -> Progress:
        """How far the batch is. Raises `UnknownBatch`."""
        with self._link.translate_redis_errors():
            return self._link.batches.progress(self.id)

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

    def follow(self, say: Callable[[str], object] | None = None) -> Iterator[Progress | None]:
        """What `look` sees, again and again, until the batch is closed; the last one says so.

        `say` takes a line where nobody is there to work at the batch; a warning in the log unless given.
        """
        say = say or log_line
        attendance = Liveness(self._link)
        while True:
            progress = self.look()
            yield progress
            if progress and progress.closed:
                return
            if progress:
                with suppress(BrokerUnreachable):  # the next look sees to that
                    for line in attendance.look(progress):
                        say(line)
            time.sleep(POLL_S)

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        say: Callable[[str], object] | None = None,
    ) -> BatchResult:
        """Wait until the batch is closed. `say` is as in `follow`.

        Raises `TimeoutError` after `timeout` seconds, `UnknownBatch`, and `BatchBroken` where nothing will come of it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for progress in self.follow(say):
            if progress and on_progress:
                on_progress(progress)
            if deadline is not None and not (progress and progress.closed) and time.monotonic() > deadline:
                raise TimeoutError(f"batch {self.id} is not finished after {timeout} s")
        return self.result()

    def result(self) -> BatchResult:
        """What came of the batch. Raises `UnknownBatch` if it is unknown or not closed yet, `BatchBroken`."""
        with self._link.translate_redis_errors():
            result = self._link.batches.result(self.id)
        if result is not None:
            return result
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
        with self._link.translate_redis_errors():
            self._link.batches.cancel(self.id)

    def retry(self) -> BatchHandle:
        """Send a new batch of what failed in this one, or was never spoken.

        Raises `UsageError` if it is not closed, if nothing failed, or if its references have expired; `UnknownBatch`,
        `BatchBroken`, `NoWorkers`, `OutputsTaken`.
        """
        if not self.progress().closed:
            raise UsageError(f"batch {self.id} is not finished: wait for it, or cancel it")
        errors = self.result().errors
        if not errors:
            raise UsageError(f"nothing of batch {self.id} failed: there is nothing to retry")
        with self._link.translate_redis_errors():
            manifest = self._link.batches.manifest(self.id)
            strategy = self._link.batches.submission(self.id).strategy
        if manifest is None:
            raise UnknownBatch(f"the texts of batch {self.id} are no longer in Redis: {_AGAIN}")
        rows = [
            speaker.model_copy(update={"segments": failed})
            for speaker in manifest.speakers
            if (failed := [row for row in speaker.segments if row[0] in errors])
        ]
        with self._link.translate_redis_errors():
            self._keep_references(rows)
            workers = self._link.workers()
            if not workers:
                raise NoWorkers
            batch = Batch(Path(manifest.source), tuple(map(_speaker, rows)), manifest.generation)
            sent = send(self._link, batch, rows, workers, Strategy(strategy))
        return BatchHandle(self._link, *sent)

    def _keep_references(self, rows: Sequence[SpeakerRow]) -> None:
        """Have Redis keep the speakers' references for one more batch; `UsageError` if it has lost any."""
        expired = set(self._link.references.renew(row.reference.digest for row in rows))
        lost = [row.id for row in rows if row.reference.digest in expired]
        if lost:
            some = ", ".join(lost[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
            raise UsageError(f"the references of {len(lost)} speakers ({some}) are no longer in Redis: {_AGAIN}")


_AGAIN = "submit the batch's file again; only what is missing is spoken"


def _speaker(row: SpeakerRow) -> Speaker:
    """A speaker to be dealt; its reference is in Redis, and no file of it is looked for."""
    segments = tuple(Segment(*segment) for segment in row.segments)
    return Speaker(row.id, Reference(row.reference.kind, (), row.reference.text), segments)
