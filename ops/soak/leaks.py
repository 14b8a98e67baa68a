"""Finds leaks of a fleet: growing processes, keys left in Redis, stray files.

Memory is the own one of a process: `Anonymous` and `Swap` of ``/proc/PID/smaps_rollup``, where a leak must appear.
Pages mapped from files, such as libraries and weights, are not counted: their number depends on the page cache.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from redis import Redis

from cloner.output.environments import ENVIRONMENTS
from cloner.output.kept_references import REFERENCES
from cloner.validation import HOUSEKEEPING

WARM_UP = 0.2
"""The fraction of the batches that fill caches: of records, of connections, of the allocator."""

GROWTH = 0.05
FLOOR_BYTES = 1024**2
"""Growth of memory that is no leak: below 5%, or below the size in which an allocator requests memory."""

GROWTH_FILES = 1
"""Growth in open files that is no leak: a pool opens another connection if two threads need one at the same time."""

END_S = 10.0
"""Seconds after the launcher's end until Celery's helper processes have ended, too."""

KEYS_OF_A_BATCH = 6
"""Keys of a closed batch: its own ones, and the one with which Celery marks its chord as joined."""


FILES_OF_A_BATCH = {".jsonl", ".ndjson", ".json", ".html", ".csv", ".peaks", ".bin"}
"""Endings of the files beside a batch's record, and of the record's own."""


@dataclass(frozen=True)
class Change:
    """Medians of a figure in the first and in the last quarter of the batches after the warm-up."""

    first: float
    last: float

    @classmethod
    def of(cls, values: list[int]) -> Change:
        """`values` has one figure a batch."""
        warm = values[round(len(values) * WARM_UP) :]
        quarter = max(1, len(warm) // 4)
        return cls(median(warm[:quarter]), median(warm[-quarter:]))

    @property
    def growth(self) -> float:
        return self.last - self.first


@dataclass
class Process:
    """One process of a fleet: its memory in bytes and its open files, after each batch."""

    title: str
    pid: int
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


class ProcessMonitor:
    """Samples the processes of a launcher."""

    def __init__(self, launcher: psutil.Process) -> None:
        self._launcher = launcher
        self.processes: list[Process] = []
        self.problems: list[str] = []
        """A message for each process that started, ended or became a zombie between samples."""

    def sample(self) -> None:
        """Record each process's memory and open files."""
        first = not self.processes
        known = {process.pid: process for process in self.processes}
        for title, current in _titled(self._launcher):
            if current.status() == psutil.STATUS_ZOMBIE:
                self.problems.append(f"{title} (process {current.pid}) is a zombie")
                continue
            process = known.pop(current.pid, None)
            if process is None:
                process = Process(title, current.pid)
                if not first:
                    self.problems.append(f"{title} (process {current.pid}) is new")
                self.processes.append(process)
            process.memory.append(own_memory(current.pid))
            process.files.append(current.num_fds())
        self.problems += [f"{process.title} (process {process.pid}) is gone" for process in known.values()]

    def grown(self) -> Iterator[str]:
        """Yield a message for each process that has grown."""
        for process in self.processes:
            memory, files = Change.of(process.memory), Change.of(process.files)
            if memory.growth > max(FLOOR_BYTES, GROWTH * memory.first):
                yield f"{process.title} has grown from {memory.first / 1e6:.1f} to {memory.last / 1e6:.1f} MB"
            if files.growth > GROWTH_FILES:
                yield f"{process.title} has {files.last:g} files open, {files.first:g} before"

    def left(self) -> Iterator[str]:
        """Yield a message for each process that outlives its launcher."""
        deadline = time.monotonic() + END_S
        for process in self.processes:
            while running := _runs(process.pid):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            if running:
                yield f"{process.title} (process {process.pid}) is still there"


def _runs(pid: int) -> bool:
    """Return whether the process runs; False also for a zombie that only process 1 has yet to reap."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.ppid() != 1
    except psutil.NoSuchProcess:
        return False


def _titled(launcher: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    yield "launcher", launcher
    for parent in launcher.children():
        is_collector = "cloner.collector" in parent.cmdline()
        title = "collector" if is_collector else f"worker {parent.environ()['CLONER_WORKER_INDEX']}"
        yield title, parent
        for child in parent.children(recursive=True):
            # Celery's helper process, which unlinks leaked semaphores.
            tracks = any("semaphore_tracker import" in argument for argument in child.cmdline())
            yield f"{title}, {'semaphores' if tracks else 'child'}", child


def own_memory(pid: int) -> int:
    """Return the bytes of a process's own memory, resident or swapped out."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size) for name, size, *_ in map(str.split, rollup)}
    return 1024 * (sizes["Anonymous:"] + sizes["Swap:"])


class Keys:
    """The keys in a Redis: those that never expire, and those that do. `redis` must decode responses."""

    def __init__(self, redis: Redis) -> None:
        expiries = {key: redis.ttl(key) for key in redis.scan_iter(count=1000)}
        # TTL returns -1 for a key without an expiry, -2 for one that has expired since the scan.
        self.staying = {key for key, seconds in expiries.items() if seconds == -1}
        self.expiring = {key for key, seconds in expiries.items() if seconds >= 0}
        self.channels = {str(channel) for channel in redis.pubsub_channels("celery-task-meta-*")}
        """Channels of results to which a process is subscribed."""

    def new_since(self, before: Keys, batch_ids: list[str]) -> Iterator[str]:
        """Yield a message for each new key that never expires, each subscription, and each batch with too many keys."""
        yield from (f"key {key} is new, and never expires" for key in sorted(self.staying - before.staying))
        yield from (f"a process is still subscribed to {channel}" for channel in sorted(self.channels))
        ids = Counter(batch_id for key in self.expiring for batch_id in batch_ids if batch_id in key)
        for batch_id, count in ids.items():
            if count > KEYS_OF_A_BATCH:
                yield f"batch {batch_id} has {count} keys, where {KEYS_OF_A_BATCH} are enough"


def stray_files(out: Path, temporary: Path, outputs: set[str], batch_ids: list[str]) -> Iterator[str]:
    """Yield a message for each file under `out` that is no output and no batch's record, and each in `temporary`."""
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name, *rest = path.relative_to(out).parts
        of_a_batch = name == HOUSEKEEPING and rest[0] in batch_ids and path.suffix in FILES_OF_A_BATCH
        is_shared = name == HOUSEKEEPING and rest[0] in {REFERENCES, ENVIRONMENTS}
        if not of_a_batch and not is_shared and str(path.relative_to(out)) not in outputs:
            yield f"stray file {path}"
    yield from (f"stray file {path}" for path in temporary.rglob("*"))
