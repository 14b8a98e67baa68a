"""How many slots there are where memory runs out: half as many, and later twice as many again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cloner.engine.memory import is_out_of_memory
from cloner.events import Event
from cloner.logs import log_event

ROUNDS, MOST_ROUNDS = 2, 64
"""Where memory ran out, twice the slots are tried when so many segments for each slot are finished. Each time that it
runs out again, it takes twice as many, up to the second figure."""


@dataclass
class SlotBackoff:
    """`full` slots at best. `resize` changes their number, by which their contents are lost; where it raises torch's
    error because there is no memory for them, it is called again with fewer."""

    full: int
    resize: Callable[[int], None]
    slots: int = field(init=False)
    _rounds: int = ROUNDS
    _finished: int = 0
    """Segments since the number of slots was changed last."""

    def __post_init__(self) -> None:
        self.slots = self.full

    def finished(self) -> None:
        """A segment was generated."""
        self._finished += 1

    def reset_rounds(self) -> None:
        """Memory ran out for a segment that was alone: that says nothing of the others."""
        self._rounds = ROUNDS

    def should_grow(self) -> bool:
        """Whether it is time to try more slots."""
        return self.slots < self.full and self._finished >= self._rounds * self.slots

    def grow(self) -> bool:
        """Try twice as many slots. False where there is no memory for them, or they are all there."""
        few = self.slots
        more = min(2 * few, self.full)
        if more == few:
            return False
        try:
            self._set(more)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            log_event(Event.MEMORY_AGAIN, slots=more, before=few)
            return True
        self._shrink_to(few)  # not in the handler: the exception's frames hold references to the memory
        log_event(Event.NO_MEMORY_YET, slots=more, fewer=self.slots)
        return False

    def shrink(self) -> None:
        """Memory ran out: half as many slots, or fewer. Raises torch's error where there is no memory for one slot."""
        self._shrink_to(max(1, self.slots // 2))

    def _shrink_to(self, slots: int) -> None:
        """So many slots, or half as many until there is memory for them: another process may have taken it meanwhile.
        Raises torch's error where there is none for one slot."""
        self._rounds = min(2 * self._rounds, MOST_ROUNDS)
        while True:
            try:
                self._set(slots)
                return
            except (RuntimeError, MemoryError) as error:
                if slots == 1 or not is_out_of_memory(error):
                    raise
            slots //= 2  # not in the handler: the exception's frames hold references to the memory

    def _set(self, slots: int) -> None:
        self._finished = 0
        self.slots = slots
        self.resize(slots)
