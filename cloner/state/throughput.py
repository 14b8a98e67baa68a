"""Rates of growing totals, and the throughput of a batch computed from its progress."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from cloner.state.progress import Progress

WINDOW_S = 30.0
"""Seconds over which a batch's throughput is computed; longer if no segment finished in them."""


def duration(seconds: float) -> str:
    """A duration for people, never zero: ``45 s``, ``12 min``, ``1 h 20 min``."""
    if seconds < 100:
        return f"{max(1, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class RateMeter:
    """Growth a second of one or more totals, over the last `window_s` seconds: by default, since the first sample."""

    def __init__(self, window_s: float = math.inf) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, tuple[float, ...]]] = deque()

    def __len__(self) -> int:
        """The number of samples that are kept."""
        return len(self._samples)

    def clear(self) -> None:
        """Forget all samples: the next one starts the window."""
        self._samples.clear()

    def add(self, now: float, *totals: float) -> None:
        """Take a sample: the totals at time `now`, in seconds."""
        self._samples.append((now, totals))

    def rates(self, now: float, *totals: float) -> tuple[float, ...]:
        """The growth a second of each total from the window's start until `now`; zeros if no time has passed.

        The window starts at the newest sample that is at least `window_s` old, but never at the last one.
        """
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        start, before = self._samples[0] if self._samples else (now, totals)
        if now <= start:
            return (0.0,) * len(totals)
        return tuple((total - old) / (now - start) for total, old in zip(totals, before, strict=True))


@dataclass(frozen=True)
class Throughput:
    """Seconds of audio generated a second, and seconds left at this rate; None where either is unknown."""

    audio_s: float | None = None
    left_s: float | None = None


class ThroughputMeter:
    """The throughput of one batch: the mean since its submission, until segments have finished at two updates."""

    def __init__(self, submitted_at: float) -> None:
        self._since_submission = RateMeter()
        self._since_submission.add(submitted_at, 0, 0)
        self._recent = RateMeter(WINDOW_S)
        """Has a sample for each growth only, so that a slow batch has a rate between two segments, too."""
        self._finished = 0

    def update(self, now: float, progress: Progress) -> Throughput:
        """Return the throughput at `now`, in seconds on the clock of the submission; empty if the batch is closed."""
        totals = (progress.finished, progress.audio_s)
        if progress.finished != self._finished:
            self._finished = progress.finished
            self._recent.add(now, *totals)
        meter = self._recent if len(self._recent) > 1 else self._since_submission
        finished_rate, audio_rate = meter.rates(now, *totals)
        if progress.closed or finished_rate <= 0:
            return Throughput()
        return Throughput(audio_rate, (progress.total - progress.finished) / finished_rate)
