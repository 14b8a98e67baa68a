"""A worker's counters and rates, which are reported with its heartbeats."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import RedisError

from cloner.protocol.results import SegmentResult
from cloner.state.batches import BatchStore
from cloner.state.counters import Count, Counters, failed_check
from cloner.state.registry import Registry
from cloner.state.throughput import RateMeter

WINDOW_S = 15.0
"""Seconds over which frames a second are computed: long enough for some segments to end in them."""


class WorkerMetrics:
    """One per child process. Thread-safe: the engine's threads, the main thread and the heartbeats' thread use it."""

    def __init__(self, name: str, batches: BatchStore, counters: Counters) -> None:
        self._name = name
        self._batches = batches
        self._counters = counters
        self._lock = threading.Lock()
        self._unreported: dict[str, float] = defaultdict(float)
        self._in_flight: set[int] = set()
        self._began_loading = 0.0
        self._load_s = 0.0
        self._frames = 0
        self._frame_rate = RateMeter(WINDOW_S)

    def loading(self, *, again: bool) -> None:
        """Count a load that begins; `again` if an earlier process of this worker has loaded."""
        self._began_loading = time.monotonic()
        self._count(Count.RESTARTS, int(again))

    def loaded(self) -> None:
        """Count a load that has succeeded."""
        self._load_s = time.monotonic() - self._began_loading
        self._count(Count.LOADS)

    @contextmanager
    def chunk(self, batch_id: str) -> Iterator[None]:
        """A context manager around the run of a chunk. Raises `RedisError` at its start."""
        queued_s = self._batches.age_s(batch_id)
        if queued_s is not None:  # else the batch has expired
            self._count(Count.CHUNKS_TAKEN)
            self._count(Count.QUEUED_S, queued_s)
        try:
            yield
        except BaseException:
            self._count(Count.CHUNKS_FAILED)
            with suppress(RedisError):
                self._report_counts()  # the process may end now
            raise
        else:
            self._count(Count.CHUNKS_FINISHED)
        finally:
            with self._lock:
                self._in_flight.clear()

    def started(self, segment: int) -> None:
        """Count a segment that the engine starts."""
        with self._lock:
            self._in_flight.add(segment)

    def finished(self, result: SegmentResult) -> None:
        """Count a segment that was generated or failed."""
        with self._lock:
            self._in_flight.discard(result.segment)
            self._frames += result.frames
            self._unreported[Count.SEGMENTS_GENERATED if result.generated else Count.SEGMENTS_FAILED] += 1
            self._unreported[Count.FRAMES] += result.frames
            self._unreported[Count.AUDIO_S] += result.audio_s
            self._unreported[Count.ATTEMPTS_AGAIN] += result.attempts_again
            self._unreported[Count.SUSPECTS] += result.is_suspect
            for attempt in result.attempts:
                for check in attempt.failed:
                    self._unreported[failed_check(check)] += 1

    def report(self, registry: Registry) -> None:
        """Report the changes since the last report. Raises `RedisError`; the next report has them then."""
        self._report_counts()
        with self._lock:
            used = len(self._in_flight)
            frames_s = self._frames_per_second()
        registry.update(
            self._name,
            slots_used=used,
            frames_s=round(frames_s, 1),
            load_s=round(self._load_s, 3),
            memory_bytes=_resident_bytes(),
        )

    def _report_counts(self) -> None:
        with self._lock:
            unreported, self._unreported = self._unreported, defaultdict(float)
        try:
            if unreported:
                self._counters.add(self._name, unreported)
        except BaseException:
            for what, much in unreported.items():
                self._count(what, much)
            raise

    def _frames_per_second(self) -> float:
        now = time.monotonic()
        if not self._in_flight:  # idle time does not count
            self._frame_rate.clear()
        self._frame_rate.add(now, self._frames)
        (frames_s,) = self._frame_rate.rates(now, self._frames)
        return frames_s

    def _count(self, what: str, much: float = 1) -> None:
        with self._lock:
            self._unreported[what] += much


def _resident_bytes() -> int:
    """Memory of this process in bytes; 0 where ``/proc`` does not exist (not Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
