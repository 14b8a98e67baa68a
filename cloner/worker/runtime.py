"""What a worker's child process holds between chunks: its engine, its place in the fleet, its records."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from redis import Redis, RedisError

from cloner.engine import codec_identity
from cloner.engine.base import Engine
from cloner.events import Event
from cloner.logs import log_event, log_line
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import Journal
from cloner.output.record import Record
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.counters import Counters
from cloner.state.keys import RedisKeys
from cloner.state.references import ReferenceStore
from cloner.state.registry import Registry, WorkerInfo, WorkerState
from cloner.worker.meter import Meter

RECORDS_KEPT = 4
"""Batches whose records stay in memory: chunks of a few batches may alternate."""


class Runtime:
    """One per child process; `redis` speaks text, `blobs` bytes."""

    def __init__(self, settings: Settings, worker: WorkerInfo, engine: Engine, redis: Redis, blobs: Redis) -> None:
        self.settings = settings
        self.name = worker.name
        self._worker = worker
        self.engine = engine
        self.redis = redis
        self.blobs = blobs
        keys = RedisKeys(settings.fleet)
        self.registry = Registry(redis, keys, settings.alive_s)
        self.batches = BatchStore(blobs, keys, settings.batch_ttl_s)
        self.references = ReferenceStore(blobs, keys, settings.batch_ttl_s)
        self.meter = Meter(worker.name, self.batches, Counters(redis, keys))
        self.outputs = OutputRoot(settings.out_dir)
        self.in_hand: Journal | None = None
        """That of the chunk which is spoken."""
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._said: set[str] = set()
        self._loaded = False
        self._codec_identity = "none"
        self._noted_steps = 0
        self._stop_beating = threading.Event()

    def record(self, batch_id: str) -> Record:
        """The batch's record, with what other workers have written meanwhile."""
        record = self._records.pop(batch_id, None) or Record(self.outputs.root, batch_id)
        self._records[batch_id] = record
        while len(self._records) > RECORDS_KEPT:
            self._records.popitem(last=False)
        record.refresh()
        return record

    @property
    def fingerprint(self) -> str:
        """What the checkpoint held when this process came to load it."""
        return self._worker.fingerprint

    @property
    def codec_identity(self) -> str:
        """What makes codes of recordings: the codec as it was loaded, whatever lies in its folder now."""
        return self._codec_identity

    @property
    def steps(self) -> int:
        """Grows with every sign of work; a worker whose steps stand still for long while it is busy is replaced."""
        return self.engine.steps + self._noted_steps

    def note_step(self) -> None:
        """Count work as a step that the engine knows nothing of, waiting for room on a full disk included."""
        self._noted_steps += 1

    def capacity(self) -> dict[str, Any]:
        """What the registry knows of the engine's size, which is less where memory has run out."""
        return {"slots": self.engine.slots, "cache_gb": round(self.engine.cache_gb, 2)}

    def others(self) -> list[WorkerInfo]:
        """The other workers that are alive, those first that may do better: on another card, and not busy."""
        place = (self._worker.box, self._worker.card)
        others = [worker for worker in self.registry.workers() if worker.name != self.name]
        return sorted(
            others, key=lambda other: ((other.box, other.card) == place, other.state is not WorkerState.READY)
        )

    def load(self) -> None:
        """Load the engine and say so in the registry. Raises `LoadFailed`."""
        # Registered without a process: the first one to load here is no restart.
        before = self.registry.get(self.name)
        self.meter.loading(again=before is not None and before.pid != 0)
        self.registry.update(self.name, pid=os.getpid(), state=WorkerState.LOADING)
        known = self.registry.get(self.name)
        if known and known.assignment:
            if self._is_open(known.assignment):
                self.say_assignment(known.assignment, known.assigned_speakers, known.assigned_texts)
            else:
                self.forget_assignment(known.assignment)
        self.engine.load(log_line)
        self._codec_identity = codec_identity(self.settings)
        self._loaded = True
        self.meter.loaded()
        self.registry.count_load(self.name)
        self.registry.update(self.name, state=WorkerState.READY, **self.capacity())
        log_event(Event.MODELS_LOADED)

    def say_assignment(self, assignment: str, speakers: int, texts: int, shared: bool = False) -> None:
        """Say once what this worker was dealt, or what it takes its chunks of."""
        if not self.is_news(assignment):
            return
        if shared:
            log_event(Event.TAKING_SHARED_CHUNKS, speakers=speakers, texts=texts)
        else:
            log_event(Event.ASSIGNED, speakers=speakers, texts=texts)

    def is_news(self, what: str) -> bool:
        """Whether this process has not said that yet; from now on, it has."""
        news = what not in self._said
        self._said.add(what)
        return news

    def first_to_say(self, batch_id: str, what: str) -> bool:
        """Whether no worker has said that of a batch yet; from now on, this one has."""
        return self.batches.is_first_to_log(batch_id, what)

    def forget_assignment(self, assignment: str) -> None:
        """The assignment is finished: a restart need not say it again."""
        known = self.registry.get(self.name)
        if known and known.assignment == assignment:
            self.registry.update(self.name, assignment="")

    def start_beating(self) -> None:
        """Send heartbeats from a thread of their own: loading and decoding do not hold it up."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def told_to_stop(self) -> None:
        """Whatever becomes of this process now is no segment's fault: it may be killed for not ending in time."""
        if self.in_hand:
            self.in_hand.end()

    def close(self) -> None:
        """Let go of the model and fall silent."""
        self._stop_beating.set()
        self.engine.close()

    def _is_open(self, assignment: str) -> bool:
        """Whether the assignment's chunks may still come. Some never did, if its batch is closed or was cancelled."""
        return self.batches.is_open(assignment.partition("/")[0])

    def _beat(self) -> None:
        while True:
            try:
                if not self.registry.beat(self.name, self.steps):
                    self._register_again()
                self.meter.report(self.registry)
            except RedisError as error:
                # Redis is away: the worker goes on, and beats again when Redis is back.
                log_event(Event.HEARTBEAT_MISSED, error=error)
            if self._stop_beating.wait(self.settings.heartbeat_s):
                return

    def _register_again(self) -> None:
        """Redis has lost its data, or forgot a worker that was silent for long."""
        if self.registry.get(self.name) is None:
            state = WorkerState.READY if self._loaded else WorkerState.LOADING
            self.registry.register(replace(self._worker, state=state, pid=os.getpid(), **self.capacity()))
