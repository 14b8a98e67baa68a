"""How fast a batch goes, and how long it will still take, from looks at its progress."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cloner.state.batches import Progress

LATELY_S = 30.0
"""Seconds over which speed is taken, or more, if nothing was finished in them."""


@dataclass(frozen=True)
class Speed:
    """Seconds of audio that are spoken a second, and seconds left at this speed; None where nothing can be said."""

    audio_s: float | None = None
    left_s: float | None = None


class ThroughputMeter:
    """Looks at one batch. Until it has seen segments finish, the batch's speed is the mean since its submission."""

    def __init__(self, submitted_at: float) -> None:
        self._looks: deque[tuple[float, int, float]] = deque([(submitted_at, 0, 0.0)])
        """When so many segments, and so many seconds of audio, were first seen to be finished."""
        self._saw_submission = True

    def look(self, now: float, progress: Progress) -> Speed:
        """Take a look at time `now` (seconds, the clock of the submission) and say how fast it goes."""
        if progress.finished != self._looks[-1][1]:
            self._looks.append((now, progress.finished, progress.audio_s))
            if self._saw_submission and len(self._looks) > 2:
                self._looks.popleft()
                self._saw_submission = False
        while len(self._looks) > 2 and now - self._looks[1][0] >= LATELY_S:
            self._looks.popleft()
        then, finished, audio_s = self._looks[0]
        spent, done = now - then, progress.finished - finished
        if progress.closed or spent <= 0 or done <= 0:
            return Speed()
        return Speed((progress.audio_s - audio_s) / spent, (progress.total - progress.finished) * spent / done)
