"""What a fleet has: its processes with their memory and open files, its keys in Redis, its files.

Memory is what a process has for itself: `Anonymous` and `Swap` of ``/proc/PID/smaps_rollup``. A leak must show there.
What it shares with others through files, as libraries and mapped weights, comes and goes with what the kernel keeps.
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

from cloner.validation import HOUSEKEEPING

WARM_UP = 0.2
"""Part of the batches in which caches fill: of records, of connections, of the allocator."""

GROWTH = 0.05
FLOOR_BYTES = 1024**2
"""Growth that is none: the pieces in which an allocator takes memory from the system are of up to this size."""

FILES = 1
"""Growth in open files that is none: a pool opens a connection more when two threads ask at once, and keeps it."""

END_S = 10.0
"""Seconds after the launcher's end in which Celery's helpers notice that they are alone."""

KEYS_OF_A_BATCH = 6
"""State, manifest, progress and result, lines that were said of it, and Celery's note that its chord is done."""


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
    """One process of a fleet, as it was at the end of each batch: bytes, and open files."""

    title: str
    pid: int
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


class Census:
    """The processes of a launcher, looked at again and again."""

    def __init__(self, launcher: psutil.Process) -> None:
        self._launcher = launcher
        self.processes: list[Process] = []
        self.faults: list[str] = []
        """A sentence for each process that came, went or died meanwhile."""

    def look(self) -> None:
        """Note what each process has now."""
        first = not self.processes
        known = {process.pid: process for process in self.processes}
        for title, now in _titled(self._launcher):
            if now.status() == psutil.STATUS_ZOMBIE:
                self.faults.append(f"{title} (process {now.pid}) is a zombie")
                continue
            process = known.pop(now.pid, None)
            if process is None:
                process = Process(title, now.pid)
                if not first:
                    self.faults.append(f"{title} (process {now.pid}) is new")
                self.processes.append(process)
            process.memory.append(own_memory(now.pid))
            process.files.append(now.num_fds())
        self.faults += [f"{process.title} (process {process.pid}) is gone" for process in known.values()]

    def grown(self) -> Iterator[str]:
        """A sentence for each process that has grown."""
        for process in self.processes:
            memory, files = Change.of(process.memory), Change.of(process.files)
            if memory.growth > max(FLOOR_BYTES, GROWTH * memory.first):
                yield f"{process.title} has grown from {memory.first / 1e6:.1f} to {memory.last / 1e6:.1f} MB"
            if files.growth > FILES:
                yield f"{process.title} has {files.last:g} files open, {files.first:g} before"

    def left(self) -> Iterator[str]:
        """A sentence for each process that does not end with its launcher."""
        deadline = time.monotonic() + END_S
        for process in self.processes:
            while running := _runs(process.pid):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            if running:
                yield f"{process.title} (process {process.pid}) is still there"


def _runs(pid: int) -> bool:
    """Whether there is such a process. One that has ended and whose parent is gone waits for process 1 alone."""
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
            # Celery's own process that unlinks semaphores nobody did.
            tracks = any("semaphore_tracker" in argument for argument in child.cmdline())
            yield f"{title}, {'semaphores' if tracks else 'child'}", child


def own_memory(pid: int) -> int:
    """Bytes that a process has for itself, in memory or swapped out."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size) for name, size, *_ in map(str.split, rollup)}
    return 1024 * (sizes["Anonymous:"] + sizes["Swap:"])


class Keys:
    """The keys in a Redis: those that stay, and those that expire. `redis` must decode responses."""

    def __init__(self, redis: Redis) -> None:
        expiries = {key: redis.ttl(key) for key in redis.scan_iter(count=1000)}
        # -1 is the answer for one that never expires, -2 for one that has expired meanwhile.
        self.staying = {key for key, seconds in expiries.items() if seconds == -1}
        self.expiring = {key for key, seconds in expiries.items() if seconds >= 0}
        self.channels = {str(channel) for channel in redis.pubsub_channels("celery-task-meta-*")}
        """Results that some process listens for."""

    def more_than(self, before: Keys, batch_ids: list[str]) -> Iterator[str]:
        """A sentence for each key that stays and was not there before, and for each batch that has too many."""
        yield from (f"key {key} is new, and never expires" for key in sorted(self.staying - before.staying))
        yield from (f"somebody still listens for {channel}" for channel in sorted(self.channels))
        ids = Counter(batch_id for key in self.expiring for batch_id in batch_ids if batch_id in key)
        for batch_id, count in ids.items():
            if count > KEYS_OF_A_BATCH:
                yield f"batch {batch_id} has {count} keys, where {KEYS_OF_A_BATCH} are enough"


def strays(out: Path, temporary: Path, outputs: set[str], batch_ids: list[str]) -> Iterator[str]:
    """A sentence for each file under the output root that is neither an output nor a batch's, and each temporary."""
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name, *rest = path.relative_to(out).parts
        of_a_batch = name == HOUSEKEEPING and rest[0] in batch_ids and path.suffix in {".jsonl", ".json", ".html"}
        if not of_a_batch and str(path.relative_to(out)) not in outputs:
            yield f"stray file {path}"
    yield from (f"stray file {path}" for path in temporary.rglob("*"))
