"""What the models get of a take: so much that it says how the take is, and no more for a longer take."""

from __future__ import annotations

import numpy as np
import soxr

from cloner.audio import Audio

MODEL_RATE = 16_000
"""Samples a second of both models."""

MOST_EXCERPTS = 3
"""Excerpts of a take at most: its start, its middle and its end."""


def excerpts(samples: Audio, rate: int, seconds: float) -> list[Audio]:
    """At most `MOST_EXCERPTS` stretches of at most so many seconds, spread over a take, at `MODEL_RATE` and within
    -1..1; the whole take if it is no longer than one. Empty if a sample is not a number, or there is none."""
    size = round(seconds * rate)
    count = min(MOST_EXCERPTS, -(-len(samples) // size))
    starts = np.linspace(0, max(0, len(samples) - size), count).round().astype(int) if count else ()
    found = [samples[start : start + size] for start in starts]
    if not all(np.isfinite(part).all() for part in found):
        return []
    # A filter overshoots; and before it, samples far beyond full scale would overflow in it.
    return [np.clip(soxr.resample(np.clip(part, -1, 1), rate, MODEL_RATE), -1, 1) for part in found]
