"""How long to wait before something that died is started again."""

from __future__ import annotations

LONGEST_S = 60.0
"""Seconds between starts of something that dies again and again, in the end."""

RAN_WELL_S = 10.0
"""Seconds after which a start counts as a good one: there was work done, and what is left of it waits."""


class Backoff:
    """1 s, then twice as long each time, up to a minute; from the beginning after a good start."""

    def __init__(self) -> None:
        self._next_s = 1.0

    def delay_s(self, ran_s: float) -> float:
        """Seconds to wait, after it ran for `ran_s` seconds and died."""
        delay = 1.0 if ran_s >= RAN_WELL_S else self._next_s
        self._next_s = min(LONGEST_S, 2 * delay)
        return delay
