"""Which workers are alive: the registry in Redis.

A worker is a hash with what is known about it, and a heartbeat in one sorted set. The launcher registers a worker
as "loading" before it starts it, so that a batch submitted meanwhile is dealt over all that are expected; the
worker turns it to "ready" when its models are loaded. Reading the fleet is two round trips, about 1 ms, where
Celery's ping costs a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

from redis import Redis

from cloner.protocol.content_key import NONE, fingerprint
from cloner.settings import EngineName, Settings
from cloner.state.connection import server_time
from cloner.state.keys import RedisKeys


class WorkerState(StrEnum):
    """What a worker is doing."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"


class WorkerPlace(Protocol):
    """Which worker of its box a worker is, and where; the launcher's and the worker's own word for it."""

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
    """One worker, as the registry knows it."""

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
    """Memory of its cache, GB of 1024**3 bytes; 0 before it has loaded, or if its engine does not size one."""
    state: WorkerState = WorkerState.LOADING
    pid: int = 0
    """Process that holds the model."""
    loads: int = 0
    """Model loads under this name since the launcher registered it."""
    steps: int = 0
    """Vitals of work since it loaded, as of its last heartbeat: those of one that hangs stand still."""
    error: str = ""
    """Why its model does not load, or why it is given up, if it is."""
    suspected_faulty: str = ""
    """A batch and chunk that another worker could speak after it could not, if it has spoken nothing since."""
    assignment: str = ""
    """The oldest batch and assignment that it was dealt and has not finished, if any: it says so when it starts."""
    assigned_speakers: int = 0
    assigned_texts: int = 0
    fingerprint: str = ""
    """What the checkpoint holds (`fingerprint.py`)."""
    spoken_s: float = 0.0
    """Seconds of audio that it has spoken since the launcher registered it."""
    busy_s: float = 0.0
    """Seconds that it took for them."""
    load_s: float = 0.0
    """Seconds that its last load took."""
    slots_used: int = 0
    """Segments in hand at its last heartbeat."""
    frames_s: float = 0.0
    """Frames a second, lately."""
    memory_bytes: int = 0
    """Memory of the process that holds the model, on the host; 0 where it cannot be told."""

    @property
    def card(self) -> str:
        """Its card's part of the name."""
        return self.name.partition("@")[0].rpartition(".")[0]

    @classmethod
    def from_hash(cls, values: Mapping[Any, Any]) -> WorkerInfo | None:
        """None if the hash is not whole, or no worker's: Redis had lost it, and somebody has written to it since."""
        if not {"name", "box", "index", "queue", "device", "gpu", "engine", "checkpoint", "slots"} <= values.keys():
            return None
        kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "WorkerState": WorkerState}
        try:
            return cls(**{f.name: kinds.get(str(f.type), str)(values[f.name]) for f in fields(cls) if f.name in values})
        except ValueError:
            return None


SLOTS: dict[EngineName, Callable[[Settings], int]] = {
    EngineName.BATCHED: lambda settings: settings.slots,
    EngineName.UPSTREAM: lambda _settings: 1,
    EngineName.FAKE: lambda settings: settings.fake_slots,
}
"""Slots of each engine before it has loaded."""


def expected_worker(settings: Settings, place: WorkerPlace) -> WorkerInfo:
    """What is known of a worker before it starts. What only loading the model tells, the worker corrects."""
    return WorkerInfo(
        name=f"{place.card}.{place.number}@{settings.box}",
        box=settings.box,
        index=place.index,
        queue=settings.queues.worker_queue(settings.box, place.card, place.number),
        device=place.device,
        gpu=place.gpu,
        engine=settings.engine,
        checkpoint=settings.checkpoint_dir.name,
        slots=SLOTS[settings.engine](settings),
        fingerprint=expected_fingerprint(settings),
    )


def expected_fingerprint(settings: Settings) -> str:
    """The fingerprint of what a worker will load: the fake engine loads nothing."""
    return NONE if settings.engine is EngineName.FAKE else fingerprint(settings.checkpoint_dir)


class Registry:
    """The workers of a fleet. `redis` must decode responses; `alive_s` is the patience with silent workers.

    Heartbeats are timed by the server's clock alone.
    """

    def __init__(self, redis: Redis, keys: RedisKeys, alive_s: float) -> None:
        self.redis = redis
        self.keys = keys
        self._alive_s = alive_s

    def register(self, worker: WorkerInfo) -> None:
        """Enter a worker that is about to start, forgetting what was known under its name."""
        values: dict[Any, Any] = {key: str(value) for key, value in asdict(worker).items()}
        now = server_time(self.redis)
        with self.redis.pipeline() as pipe:
            pipe.delete(self.keys.worker(worker.name))
            pipe.hset(self.keys.worker(worker.name), mapping=values)
            pipe.zadd(self.keys.workers, {worker.name: now})
            pipe.hset(self.keys.worker_queues, worker.queue, worker.name)
            pipe.execute()

    def beat(self, name: str, steps: int | None = None) -> bool:
        """The worker lives, and has come that far. False if the registry had forgotten it."""
        now = server_time(self.redis)
        with self.redis.pipeline() as pipe:
            pipe.zadd(self.keys.workers, {name: now})
            if steps is not None:
                pipe.hset(self.keys.worker(name), "steps", str(steps))
            added, *_ = pipe.execute()
        return not added

    def update(self, name: str, **values: str | float) -> None:
        """Change some of what is known about a worker."""
        mapping: dict[Any, Any] = {key: str(value) for key, value in values.items()}
        self.redis.hset(self.keys.worker(name), mapping=mapping)

    def assign(self, name: str, assignment: str, speakers: int, texts: int) -> None:
        """Note what a worker was dealt, to be said when it starts. An earlier assignment stays until it is finished."""
        if not self.redis.hget(self.keys.worker(name), "assignment"):
            self.update(name, assignment=assignment, assigned_speakers=speakers, assigned_texts=texts)

    def count_load(self, name: str) -> None:
        """The worker has loaded its models once more."""
        self.redis.hincrby(self.keys.worker(name), "loads", 1)

    def give_up(self, name: str, why: str) -> None:
        """The worker is not expected back: nothing is dealt to it, and who watches sees it as gone."""
        silent_since = server_time(self.redis) - self._alive_s - 1
        with self.redis.pipeline() as pipe:
            pipe.zadd(self.keys.workers, {name: silent_since})
            pipe.hset(self.keys.worker(name), "error", why)
            pipe.execute()

    def remove(self, name: str) -> None:
        """The worker is not expected back."""
        with self.redis.pipeline() as pipe:
            pipe.zrem(self.keys.workers, name)
            pipe.delete(self.keys.worker(name))
            pipe.execute()

    def set_busy(self, name: str) -> None:
        """The worker has taken a chunk."""
        self.update(name, state=WorkerState.BUSY)

    def finish_chunk(self, name: str, capacity: Mapping[str, Any], spoken_s: float, busy_s: float) -> None:
        """The worker is ready for its next chunk; `capacity` is what its registry entry says of its size.

        It has generated `spoken_s` seconds of audio of the last one in `busy_s` seconds.
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
        """Whether a collector has sent a heartbeat lately."""
        return bool(self.redis.exists(self.keys.collector_heartbeat))

    def beat_collector(self, pid: int) -> None:
        """A collector is alive."""
        self.redis.set(self.keys.collector_heartbeat, pid, px=max(1, round(self._alive_s * 1000)))

    def get(self, name: str) -> WorkerInfo | None:
        """One worker, alive or not."""
        values = self.redis.hgetall(self.keys.worker(name))
        return WorkerInfo.from_hash(values)

    def workers(self) -> list[WorkerInfo]:
        """All workers with a recent heartbeat, in the order in which speakers are dealt to them."""
        names = self.redis.zrangebyscore(self.keys.workers, server_time(self.redis) - self._alive_s, "+inf")
        with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self.keys.worker(str(name)))
            hashes = pipe.execute()
        workers = [worker for values in hashes if (worker := WorkerInfo.from_hash(values))]
        return sorted(workers, key=lambda worker: (worker.box, worker.index))
