"""What a worker counts of its own work, and tells with its heartbeats."""

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
from cloner.state.counters import Count, Counters
from cloner.state.registry import Registry
from cloner.state.throughput import RateMeter

WINDOW_S = 15.0
"""Seconds over which frames a second are computed: long enough for some segments to end in them."""


class Meter:
    """One per child process.

    The engine's threads, the one that runs chunks and the one that sends heartbeats meet here.
    """

    def __init__(self, name: str, batches: BatchStore, counters: Counters) -> None:
        self._name = name
        self._batches = batches
        self._counters = counters
        self._lock = threading.Lock()
        self._untold: dict[Count, float] = defaultdict(float)
        self._in_hand: set[int] = set()
        self._began_loading = 0.0
        self._load_s = 0.0
        self._frames = 0
        self._frame_rate = RateMeter(WINDOW_S)

    def loading(self, *, again: bool) -> None:
        """The models are about to be loaded; `again` if a process has done so here before."""
        self._began_loading = time.monotonic()
        self._count(Count.RESTARTS, int(again))

    def loaded(self) -> None:
        """The models are loaded."""
        self._load_s = time.monotonic() - self._began_loading
        self._count(Count.LOADS)

    @contextmanager
    def chunk(self, batch_id: str) -> Iterator[None]:
        """Inside it, a chunk of the batch is spoken."""
        queued_s = self._batches.age_s(batch_id)
        if queued_s is not None:  # else the batch has expired
            self._count(Count.CHUNKS_TAKEN)
            self._count(Count.QUEUED_S, queued_s)
        try:
            yield
        except BaseException:
            self._count(Count.CHUNKS_FAILED)
            with suppress(RedisError):
                self._tell_counts()  # it may be the last word of this process
            raise
        else:
            self._count(Count.CHUNKS_FINISHED)
        finally:
            with self._lock:
                self._in_hand.clear()

    def started(self, segment: int) -> None:
        """The engine has taken a segment in hand."""
        with self._lock:
            self._in_hand.add(segment)

    def finished(self, result: SegmentResult) -> None:
        """A segment was generated, or failed."""
        with self._lock:
            self._in_hand.discard(result.segment)
            self._frames += result.frames
            self._untold[Count.SEGMENTS_GENERATED if result.generated else Count.SEGMENTS_FAILED] += 1
            self._untold[Count.FRAMES] += result.frames
            self._untold[Count.AUDIO_S] += result.audio_s

    def report(self, registry: Registry) -> None:
        """Tell what has changed. Raises `RedisError`; then it is told the next time."""
        self._tell_counts()
        with self._lock:
            used = len(self._in_hand)
            frames_s = self._frames_a_second()
        registry.update(
            self._name,
            slots_used=used,
            frames_s=round(frames_s, 1),
            load_s=round(self._load_s, 3),
            memory_bytes=_resident_bytes(),
        )

    def _tell_counts(self) -> None:
        with self._lock:
            untold, self._untold = self._untold, defaultdict(float)
        try:
            if untold:
                self._counters.add(self._name, untold)
        except BaseException:
            for what, much in untold.items():
                self._count(what, much)
            raise

    def _frames_a_second(self) -> float:
        now = time.monotonic()
        if not self._in_hand:  # idle time does not count
            self._frame_rate.clear()
        self._frame_rate.add(now, self._frames)
        (frames_s,) = self._frame_rate.rates(now, self._frames)
        return frames_s

    def _count(self, what: Count, much: float = 1) -> None:
        with self._lock:
            self._untold[what] += much


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell (it is not Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
