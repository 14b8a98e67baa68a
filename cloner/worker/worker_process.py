"""A worker's child process: its engine, its connections, its entry in the registry, its records."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from redis import Redis

from cloner.checks.usual import History
from cloner.engine import codec_identity
from cloner.engine.base import Engine
from cloner.engine.environment import environment_of
from cloner.events import Event
from cloner.logs import log_event, log_line
from cloner.output.audio_files import OutputRoot
from cloner.output.environments import Environment, note_environment
from cloner.output.journal import Journal
from cloner.output.record import Record
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.counters import Counters
from cloner.state.keys import RedisKeys
from cloner.state.references import ReferenceStore
from cloner.state.registry import Registry, WorkerInfo, WorkerState
from cloner.worker.metrics import WorkerMetrics

RECORDS_KEPT = 4
"""Batches whose records, and whose speakers' usual speech, stay in memory: chunks of a few batches may alternate."""

LOGGED_KEPT = 1000
"""Assignments of which a process remembers that it has logged them."""


class WorkerProcess:
    """One per child process. Parts of a run of a chunk get it to share its collaborators."""

    def __init__(self, settings: Settings, info: WorkerInfo, engine: Engine, redis: Redis, blobs: Redis) -> None:
        """`redis` must decode responses, `blobs` must not."""
        self.settings = settings
        self.name = info.name
        self._info = info
        self.engine = engine
        self.redis = redis
        self.blobs = blobs
        keys = RedisKeys(settings.fleet)
        self.registry = Registry(redis, keys, settings.alive_s)
        self.batches = BatchStore.of(settings, blobs)
        self.references = ReferenceStore(blobs, keys, settings.batch_ttl_s)
        self.metrics = WorkerMetrics(info.name, self.batches, Counters(redis, keys))
        self.outputs = OutputRoot(settings.out_dir)
        self.journal: Journal | None = None
        """Journal of the chunk that is run, or was run last."""
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._logged: OrderedDict[str, None] = OrderedDict()
        self._environment: Environment | None = None
        self._loaded = False
        self._codec_identity = "none"
        self._noted_steps = 0
        self._is_closed = False

    def record(self, batch_id: str, assignment: int | None = None) -> Record:
        """The batch's record, with the lines that other workers have written meanwhile; those about an assignment, if
        one is given, and about others of this process. Raises `RecordFailed`."""
        record = self._records.pop(batch_id, None) or Record(self.outputs.root, batch_id)
        self._records[batch_id] = record
        while len(self._records) > RECORDS_KEPT:
            self._records.popitem(last=False)
        record.refresh(assignment)
        return record

    def history(self, batch_id: str) -> History:
        """What is usual for the batch's speakers, as far as this process has checked of it."""
        history = self._histories.pop(batch_id, None) or History()
        self._histories[batch_id] = history
        while len(self._histories) > RECORDS_KEPT:
            self._histories.popitem(last=False)
        return history

    @property
    def fingerprint(self) -> str:
        """Identifies the content of the checkpoint when this process loaded it."""
        return self._info.fingerprint

    @property
    def codec_identity(self) -> str:
        """Identifies the codec as it was loaded, even if its file has changed since; "none" before."""
        return self._codec_identity

    def note_environment(self) -> None:
        """Note on the disk what this process generates with, so that `cloner reproduce` can compare it."""
        environment = environment_of(
            self.settings, self.engine, fingerprint=self.fingerprint, codec=self.codec_identity, gpu=self._info.gpu
        )
        if environment == self._environment:
            return
        try:
            note_environment(self.outputs, self.name, environment)
        except OSError as error:
            log_event(Event.ENVIRONMENT_NOT_KEPT, error=error)
        else:
            self._environment = environment

    @property
    def steps(self) -> int:
        """Count of steps of work. The launcher replaces a busy worker whose count does not grow for long."""
        return self.engine.steps + self._noted_steps

    def note_step(self) -> None:
        """Count a step outside the engine, such as waiting for room on a full disk."""
        self._noted_steps += 1

    def capacity(self) -> dict[str, Any]:
        """The registry's fields about what the engine can do; its size shrinks where memory has run out."""
        cache_gb = round(self.engine.cache_gb, 2)
        return {"slots": self.engine.slots, "cache_gb": cache_gb, "warning": self.engine.warning}

    def others(self) -> list[WorkerInfo]:
        """The other workers that are alive; those on another GPU come first, then those that are not busy."""
        place = (self._info.box, self._info.card)
        others = [worker for worker in self.registry.workers() if worker.name != self.name]
        return sorted(
            others, key=lambda other: ((other.box, other.card) == place, other.state is not WorkerState.READY)
        )

    def load(self) -> None:
        """Load the engine, and register the worker as ready. Raises `LoadFailed`."""
        # A launcher registers a worker without a process id: the first load is not a restart.
        before = self.registry.get(self.name)
        self.metrics.loading(again=before is not None and before.pid != 0)
        self.registry.update(self.name, pid=os.getpid(), state=WorkerState.LOADING)
        known = self.registry.get(self.name)
        if known and known.assignment:
            if self._is_open(known.assignment):
                self.log_assignment(known.assignment, known.assigned_speakers, known.assigned_texts)
            else:
                self.forget_assignment(known.assignment)
        self.engine.load(log_line)
        self._codec_identity = codec_identity(self.settings)
        self._loaded = True
        self.metrics.loaded()
        self.registry.count_load(self.name)
        self.registry.update(self.name, state=WorkerState.READY, **self.capacity())
        log_event(Event.MODELS_LOADED)

    def log_assignment(self, assignment: str, speakers: int, texts: int) -> None:
        """Log once what this worker was assigned: all of a batch, or a chunk of the shared queue."""
        if self.mark_logged(assignment):
            log_event(Event.ASSIGNED, speakers=speakers, texts=texts)

    def mark_logged(self, what: str) -> bool:
        """Remember that `what` is logged; returns whether it was not yet. The last `LOGGED_KEPT` are remembered."""
        is_first = what not in self._logged
        self._logged[what] = None
        self._logged.move_to_end(what)
        while len(self._logged) > LOGGED_KEPT:
            self._logged.popitem(last=False)
        return is_first

    def forget_assignment(self, assignment: str) -> None:
        """Remove a finished assignment from the registry: a restarted worker does not log it again."""
        known = self.registry.get(self.name)
        if known and known.assignment == assignment:
            self.registry.update(self.name, assignment="")

    def beat(self, registry: Registry) -> None:
        """Send state, steps and metrics; nothing once the worker is closed. Raises `RedisError`."""
        if self._is_closed:
            return
        if not registry.beat(self.name, self.steps):
            self._register_again(registry)
        self.metrics.report(registry)

    def end_run(self) -> None:
        """End the run in the journal: if this process is killed from now on, no segment is suspected."""
        if self.journal:
            self.journal.end()

    def close(self) -> None:
        """Release the model, and send no further state."""
        self._is_closed = True
        self.engine.close()

    def _is_open(self, assignment: str) -> bool:
        """Whether chunks of the assignment may still come: its batch is neither closed nor cancelled."""
        return self.batches.is_open(assignment.partition("/")[0])

    def _register_again(self, registry: Registry) -> None:
        """Register the worker after Redis has lost its entry."""
        if registry.get(self.name) is None:
            state = WorkerState.READY if self._loaded else WorkerState.LOADING
            registry.register(replace(self._info, state=state, pid=os.getpid(), **self.capacity()))
