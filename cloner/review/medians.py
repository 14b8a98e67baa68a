"""What is usual for a speaker, learnt from the takes that are reviewed: most of them are right."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np

MOST_SCORES = 1_000
"""The last scores of a speaker that are learnt from: more make no median better, and there may be a million."""

EXPECTED_COUNTS = 3
"""Takes that the expected score counts as: where all takes of a speaker are wrong, the first do not make that usual."""


class SpeakerMedians:
    """The median of one kind of score, for each speaker."""

    def __init__(self) -> None:
        self._scores: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST_SCORES))

    def add(self, speaker: str, score: float) -> None:
        """Learn from a take's score."""
        self._scores[speaker].append(score)

    def usual(self, speaker: str, expected: float) -> float:
        """The median of the speaker's scores so far, and of what is expected, as often as `EXPECTED_COUNTS`."""
        return float(np.median([*[expected] * EXPECTED_COUNTS, *self._scores.get(speaker, ())]))
