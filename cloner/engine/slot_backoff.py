"""How many slots are tried where memory runs out: half as many, and later twice as many again."""

from __future__ import annotations

from dataclasses import dataclass, field

ROUNDS, MOST_ROUNDS = 2, 64
"""Where memory ran out, twice the slots are tried when so many segments for each slot are finished. Each time that it
runs out again, it takes twice as many, up to the second figure."""


@dataclass
class SlotBackoff:
    """`full` slots at best."""

    full: int
    slots: int = field(init=False)
    _rounds: int = ROUNDS
    _finished: int = 0
    """Segments since the number of slots was changed last."""

    def __post_init__(self) -> None:
        self.slots = self.full

    def finished(self) -> None:
        """A segment was generated."""
        self._finished += 1

    def shrink(self, slots: int) -> int:
        """Memory ran out: so many slots from now on. It returns their number."""
        self._rounds = min(2 * self._rounds, MOST_ROUNDS)
        return self._set(slots)

    def blame_segment(self) -> None:
        """Memory ran out for a segment that was alone: that says nothing of the others."""
        self._rounds = ROUNDS

    def wants_more(self) -> bool:
        """Whether it is time to try more slots."""
        return self.slots < self.full and self._finished >= self._rounds * self.slots

    def grow(self) -> int:
        """Try twice as many. It returns their number."""
        return self._set(min(2 * self.slots, self.full))

    def _set(self, slots: int) -> int:
        self._finished = 0
        self.slots = slots
        return slots
