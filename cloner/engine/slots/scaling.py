"""The number of slots: halved when memory runs out, doubled again later."""

from __future__ import annotations

from cloner.engine.memory import is_out_of_memory
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.step_runner import StepRunner
from cloner.events import Event
from cloner.logs import log_event

GROW_AFTER, MAX_GROW_AFTER = 2, 64
"""After memory ran out, twice the slots are tried as soon as so many segments a slot are finished. Each time that it
runs out again, the number is doubled, up to the second figure."""


class SlotScaling:
    """Resizes the slots, and the memory for references in proportion. All methods that resize lose the slots'
    contents."""

    def __init__(self, step_runner: StepRunner, prefixes: PrefixCache) -> None:
        self._step_runner = step_runner
        self._prefixes = prefixes
        self._initial_prefix_bytes = prefixes.capacity_bytes
        self._grow_after = GROW_AFTER
        self._finished = 0
        """Segments since the number of slots was last changed."""

    def segment_finished(self) -> None:
        """Count a finished segment."""
        self._finished += 1

    def should_grow(self) -> bool:
        """Whether it is time to try more slots."""
        slots = self._step_runner.current_slots
        return slots < self._step_runner.initial_slots and self._finished >= self._grow_after * slots

    def grow(self) -> bool:
        """Try twice as many slots. Returns False if there is no memory for them, or if there were no more."""
        few = self._step_runner.current_slots
        more = min(2 * few, self._step_runner.initial_slots)
        if more == few:
            return False
        try:
            self._resize(more)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            log_event(Event.MEMORY_AGAIN, slots=more, before=few)
            return True
        self._shrink_to(few)
        log_event(Event.NO_MEMORY_YET, slots=more, fewer=self._step_runner.current_slots)
        return False

    def shrink(self) -> bool:
        """Halve the slots, more than once if there is no memory for half of them. Returns False if there is only one.
        Raises torch's error if there is no memory for one."""
        slots = self._step_runner.slots
        if slots == 1:
            self._grow_after = GROW_AFTER  # one segment alone was too large; the others need not be
            return False
        self._shrink_to(max(1, self._step_runner.current_slots // 2))
        log_event(Event.OUT_OF_MEMORY, slots=slots, fewer=self._step_runner.slots)
        return True

    def _shrink_to(self, slots: int) -> None:
        """Change to so many slots, or to half as many until there is memory for them: another process may have taken
        it meanwhile. Raises torch's error if there is none for one slot."""
        self._grow_after = min(2 * self._grow_after, MAX_GROW_AFTER)
        while True:
            try:
                self._resize(slots)
                return
            except (RuntimeError, MemoryError) as error:
                if slots == 1 or not is_out_of_memory(error):
                    raise
            slots //= 2  # not in the handler: the exception's frames hold references to the memory

    def _resize(self, slots: int) -> None:
        self._finished = 0
        self._step_runner.resize(slots)
        self._prefixes.capacity_bytes = self._initial_prefix_bytes * slots // self._step_runner.initial_slots
