"""What a run of a chunk does about the runs before it that crashed. The decisions are in `crash_plan.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NoReturn

from cloner.errors import WorkerBroken
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import codes_part
from cloner.output.journal import Journal
from cloner.protocol.messages import ChunkMessage
from cloner.worker.crash_plan import MAX_FRUITLESS_CRASHES, MAX_LONE_CRASHES, CrashPlan, plan_after_crashes
from cloner.worker.pending import PendingSegment
from cloner.worker.worker_process import WorkerProcess

CRASHED = (
    f"the worker's process died {MAX_LONE_CRASHES} times while it spoke this segment and no other: change its text, or"
    " look into the worker's log for what happened"
)

HOPELESS = (
    f"the worker's process died {MAX_FRUITLESS_CRASHES} times without a segment generated in between: look into the"
    " worker's log for what happened, and submit the batch again"
)

USELESS = (
    "it could speak nothing of two chunks in a row, and another worker could speak the first: look at its card, and"
    " into its log for what happened"
)


class PassedOn(Exception):
    """The chunk is left to another worker, whose queue is `queue`."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue


class CrashRecovery:
    """The crashed runs of one chunk, as its journal has them."""

    def __init__(self, worker: WorkerProcess, message: ChunkMessage, journal: Journal) -> None:
        self._worker = worker
        self._message = message
        self._journal = journal
        self._others = worker.others() if journal.crashed else []

    def discard_unfinished_files(self) -> None:
        """Remove the files that earlier runs were writing when they ended.

        Those of runs that ended by themselves, too: a process that was asked to stop may have been killed.
        """
        for run in self._journal.runs:
            for name in (run.part, codes_part(run.part)):
                self._worker.outputs.discard(name)

    def discard_own_files(self) -> None:
        """Remove what this run has left of files that it could not write."""
        own = self._worker.outputs.part
        for name in (own, codes_part(own)):
            self._worker.outputs.discard(name)

    def plan(self, pending: Mapping[int, PendingSegment], generated: int) -> CrashPlan:
        """How the pending segments are generated, `generated` segments of the chunk being finished."""
        speakers = {index: segment.speaker.id for index, segment in pending.items()}
        return plan_after_crashes(
            self._journal.crashed, speakers, generated, self._worker.name, has_others=bool(self._others)
        )

    def unable_workers(self, generated: int) -> set[str]:
        """Names of the other workers whose processes died again and again before any of what is pending was
        generated."""
        deaths = Counter(run.worker for run in self._journal.crashed if run.generated == generated)
        return {name for name, times in deaths.items() if times >= MAX_LONE_CRASHES - 1} - {self._worker.name}

    def pass_on(self) -> NoReturn:
        """Leave the chunk to another worker, as this one may be at fault: raises `PassedOn`.

        Raises `WorkerBroken` if another worker could generate what this one passed on before.
        """
        known = self._worker.registry.get(self._worker.name)
        if known and known.suspected_faulty:
            raise WorkerBroken(USELESS)
        other = self._others[0]
        number, batch_id = self._message.number, self._message.batch_id
        log_event(Event.CHUNK_PASSED_ON, chunk=number, batch=batch_id, to=other.name)
        raise PassedOn(other.queue)
