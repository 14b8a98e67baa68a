"""Loops in a take's codes: the model repeats what it has just generated."""

from __future__ import annotations

import numpy as np

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE, Codes

SHORTEST_LAG, LONGEST_LAG = 3, 64
"""Frames of a stretch that comes again: 0.14 to 3 s."""


def repeated_seconds(codes: Codes) -> float:
    """Seconds of the longest stretch of the codes' first row that comes again at once, from its start to its end.

    A stretch in which most codes are like their predecessor, as in silence, does not count. Codes that are generated
    at random, or that are speech, hardly ever come again in the same order.
    """
    row = codes[0]
    steady = np.concatenate([[0], np.cumsum(row[1:] == row[:-1])])
    longest = 0
    for lag in range(SHORTEST_LAG, min(LONGEST_LAG, len(row) // 2) + 1):
        # Runs of codes that are those of `lag` frames later: between two that are not.
        breaks = np.flatnonzero(row[:-lag] != row[lag:])
        edges = np.concatenate([[-1], breaks, [len(row) - lag]])
        runs = np.diff(edges) - 1
        place = int(runs.argmax())
        run, start = int(runs[place]), int(edges[place]) + 1
        if run >= max(lag, longest + 1) and 2 * (steady[start + run - 1] - steady[start]) < run:
            longest = run
    return longest * FRAME_SAMPLES / SAMPLE_RATE
