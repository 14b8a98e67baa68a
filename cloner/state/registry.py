"""The registry of workers and reviewers in Redis: which exist, which are alive, what each is doing.

A worker is a hash of its fields, and a heartbeat in one sorted set. The launcher registers a worker as "loading" before
it starts the process, so that a batch submitted meanwhile is assigned to all expected workers; the worker sets it to
"ready" when its models are loaded. Reading the fleet takes two round trips, about 1 ms; Celery's ping takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from redis import Redis

from cloner.protocol.content_key import NO_CHECKPOINT, fingerprint
from cloner.settings import EngineName, Settings
from cloner.state.damage import pass_over, read_or
from cloner.state.entries import Entries, typed_values
from cloner.state.keys import RedisKeys

REMOVE_COLLECTOR = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
"""The heartbeat of all collectors of a fleet is one key: it has the name of the last that sent one."""


class WorkerState(StrEnum):
    """What a worker or a reviewer is doing."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"


class Assigned(NamedTuple):
    """What a worker is assigned of a batch."""

    id: str
    """The batch and the assignment's number."""
    speakers: int
    texts: int


class WorkerPlace(Protocol):
    """Which worker of its box this is, and on which device; the launcher and the worker each have a class of it."""

    @property
    def index(self) -> int: ...
    @property
    def card(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def gpu(self) -> str: ...


@dataclass(frozen=True)
class WorkerInfo:
    """One worker's entry in the registry."""

    name: str
    box: str
    index: int
    """Number on its box, as in its log lines."""
    queue: str
    device: str
    """"cpu" or "cuda:N"."""
    gpu: str
    engine: str
    checkpoint: str
    slots: int
    cache_gb: float = 0.0
    """Memory of the cache, GB of 1024**3 bytes; 0 before the load, or if the engine does not size one."""
    state: WorkerState = WorkerState.LOADING
    pid: int = 0
    """Id of the process that holds the model."""
    loads: int = 0
    """Model loads under this name since the launcher registered it."""
    steps: int = 0
    """Work done since the load, at the last heartbeat; it does not grow while the engine hangs."""
    warning: str = ""
    """Why the engine is slower than it could be on this device, if it is."""
    error: str = ""
    """Why the model does not load, or why the worker is given up, if it is."""
    suspected_faulty: str = ""
    """A batch and chunk that another worker could generate after this one could not, if this one has generated nothing
    since."""
    assignment: str = ""
    """The oldest batch and assignment that it has not finished, if any: it logs it when it starts."""
    assigned_speakers: int = 0
    assigned_texts: int = 0
    fingerprint: str = ""
    """Identifies the content of the checkpoint (`content_key.fingerprint`)."""
    spoken_s: float = 0.0
    """Seconds of audio generated since the launcher registered the worker."""
    busy_s: float = 0.0
    """Seconds that this took."""
    load_s: float = 0.0
    """Seconds that the last load took."""
    slots_used: int = 0
    """Segments in flight at the last heartbeat."""
    frames_s: float = 0.0
    """Recent frames a second."""
    memory_bytes: int = 0
    """Memory of the process that holds the model, on the host; 0 where the system does not tell."""

    @property
    def card(self) -> str:
        """The card's part of the name."""
        return self.name.partition("@")[0].rpartition(".")[0]

    @classmethod
    def from_hash(cls, values: Mapping[Any, Any]) -> WorkerInfo | None:
        """None if fields are missing or make no sense."""
        typed = typed_values(cls, values, {"WorkerState": WorkerState})
        return None if typed is None else cls(**typed)


@dataclass(frozen=True)
class ReviewerInfo:
    """One reviewer's entry: a process that hears takes, and is assigned none."""

    name: str
    box: str
    words: bool
    """Whether it has a recogniser, so that it compares what is said with the text."""
    state: WorkerState = WorkerState.LOADING
    pid: int = 0
    """Id of the process that holds the models."""
    loads: int = 0
    """Loads of its models under this name since the launcher registered it."""
    steps: int = 0
    """Work done since the load, at the last heartbeat."""
    heard: int = 0
    """Takes and references heard since the launcher registered it."""
    error: str = ""
    """Why the models do not load, or why the reviewer is given up, if it is."""

    @classmethod
    def from_hash(cls, values: Mapping[Any, Any]) -> ReviewerInfo | None:
        """None if fields are missing or make no sense."""
        typed = typed_values(cls, values, {"WorkerState": WorkerState})
        return None if typed is None else cls(**typed)


def expected_worker(settings: Settings, place: WorkerPlace) -> WorkerInfo:
    """A worker's entry before it starts. The worker corrects what only the load can tell."""
    return WorkerInfo(
        name=f"{place.card}.{place.number}@{settings.box}",
        box=settings.box,
        index=place.index,
        queue=settings.queues.worker_queue(settings.box, place.card, place.number),
        device=place.device,
        gpu=place.gpu,
        engine=settings.engine,
        checkpoint=settings.checkpoint_dir.name,
        slots=_expected_slots(settings, place.device),
        fingerprint=expected_fingerprint(settings),
    )


def expected_reviewer(settings: Settings, name: str) -> ReviewerInfo:
    """A reviewer's entry before it starts."""
    return ReviewerInfo(name=name, box=settings.box, words=settings.recogniser is not None)


def _expected_slots(settings: Settings, device: str) -> int:
    match settings.engine:
        case EngineName.BATCHED:
            return settings.batched_slots(device)
        case EngineName.UPSTREAM:
            return 1
        case EngineName.FAKE:
            return settings.fake_slots


def expected_fingerprint(settings: Settings) -> str:
    """The fingerprint of the checkpoint that a worker will load; the fake engine loads none."""
    return NO_CHECKPOINT if settings.engine is EngineName.FAKE else fingerprint(settings.checkpoint_dir)


class Registry:
    """The workers and reviewers of a fleet. `redis` must decode responses; a process is alive for `alive_s` seconds
    after a heartbeat.
    """

    def __init__(self, redis: Redis, keys: RedisKeys, alive_s: float) -> None:
        self.redis = redis
        self.keys = keys
        self._alive_s = alive_s
        self.worker_entries = Entries(redis, WorkerInfo, keys.workers, keys.worker, alive_s)
        self.reviewer_entries = Entries(redis, ReviewerInfo, keys.reviewers, keys.reviewer, alive_s)

    def register(self, worker: WorkerInfo) -> None:
        """Enter a worker that is about to start; an older entry of its name is replaced."""
        self.redis.zrem(self.keys.gone, worker.name)  # first: then no launcher removes what follows
        self.redis.hset(self.keys.worker_queues, worker.queue, worker.name)
        self.worker_entries.register(worker)

    def beat(self, name: str, steps: int | None = None) -> bool:
        """Note a heartbeat and the work done so far. False if the registry had no entry of the worker."""
        return self.worker_entries.beat(name, steps)

    def update(self, name: str, **values: str | float) -> None:
        """Change some fields of a worker's entry."""
        self.worker_entries.update(name, **values)

    def assign(self, assignments: Mapping[str, Assigned]) -> None:
        """Note the assignments of workers, by name, which the workers log when they start. An earlier one stays until
        it is finished. Two round trips for all."""
        with self.redis.pipeline(transaction=False) as pipe:
            for name in assignments:
                pipe.hget(self.keys.worker(name), "assignment")
            earlier = pipe.execute()
            for (name, new), known in zip(assignments.items(), earlier, strict=True):
                if not known:
                    values: dict[Any, Any] = {
                        "assignment": new.id,
                        "assigned_speakers": new.speakers,
                        "assigned_texts": new.texts,
                    }
                    pipe.hset(self.keys.worker(name), mapping=values)
            pipe.execute()

    def count_load(self, name: str) -> None:
        """The worker has loaded its models once more."""
        self.worker_entries.count(name, "loads")

    def give_up(self, name: str, why: str) -> None:
        """The worker will not come back: it gets no assignments, and monitoring shows it as gone."""
        self.worker_entries.give_up(name, why)

    def remove(self, name: str) -> None:
        """Remove the entry of a worker that will not come back."""
        self.worker_entries.remove(name)

    def set_busy(self, name: str) -> None:
        """The worker has taken a chunk."""
        self.update(name, state=WorkerState.BUSY)

    def finish_chunk(self, name: str, capacity: Mapping[str, Any], spoken_s: float, busy_s: float) -> None:
        """The worker is ready for its next chunk; `capacity` are the fields of its size.

        It has generated `spoken_s` seconds of audio of the last chunk, in `busy_s` seconds.
        """
        key = self.keys.worker(name)
        mapping: dict[Any, Any] = {"state": WorkerState.READY, **capacity}
        with self.redis.pipeline(transaction=False) as pipe:
            if spoken_s:
                mapping["suspected_faulty"] = ""
                pipe.hincrbyfloat(key, "spoken_s", spoken_s)
                pipe.hincrbyfloat(key, "busy_s", busy_s)
            pipe.hset(key, mapping=mapping)
            pipe.execute()

    def collector_is_alive(self) -> bool:
        """Whether a collector has sent a heartbeat within `alive_s`."""
        return bool(self.redis.exists(self.keys.collector_heartbeat))

    def beat_collector(self, name: str) -> None:
        """Note a heartbeat of the collector of that name."""
        self.redis.set(self.keys.collector_heartbeat, name, px=max(1, round(self._alive_s * 1000)))

    def remove_collector(self, name: str) -> None:
        """The collector of that name has stopped: none is alive, unless another one has sent a heartbeat since its
        last, or sends its next."""
        self.redis.eval(REMOVE_COLLECTOR, 1, self.keys.collector_heartbeat, name)

    def get(self, name: str) -> WorkerInfo | None:
        """A worker's entry, alive or not; None if there is none."""
        return self.worker_entries.get(name)

    def workers(self) -> list[WorkerInfo]:
        """All workers with a recent heartbeat, in the order in which speakers are assigned to them."""
        return [worker for worker, silent_s in self.all_workers() if silent_s <= self._alive_s]

    def all_workers(self) -> list[tuple[WorkerInfo, float]]:
        """All registered workers, alive or not, with the seconds since their last heartbeat; ordered by box and
        index. What is damaged is passed over."""
        return sorted(self.worker_entries.all(), key=lambda entry: (entry[0].box, entry[0].index))

    def reviewers(self) -> list[ReviewerInfo]:
        """All reviewers with a recent heartbeat, those that still load included, by name."""
        found = [info for info, silent_s in self.reviewer_entries.all() if silent_s <= self._alive_s]
        return sorted(found, key=lambda info: info.name)

    def worker_queues(self) -> dict[str, str]:
        """Queue -> name of its worker, also of workers that are gone: messages may be left in their queues."""
        key = self.keys.worker_queues
        found: dict[str, str] = read_or({}, key, lambda: self.redis.hgetall(key))
        for queue, name in found.items():
            if not (queue.isprintable() and name.isprintable()):
                pass_over(f"{key} {queue}", "it has control characters")
        return {queue: name for queue, name in found.items() if queue.isprintable() and name.isprintable()}
