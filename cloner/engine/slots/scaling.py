"""The number of slots: halved when memory runs out, doubled again later."""

from __future__ import annotations

from cloner.engine.slot_backoff import SlotBackoff
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.step_runner import StepRunner
from cloner.events import Event
from cloner.logs import log_event


class SlotScaling:
    """Resizes the slots, and the memory for references in proportion. All methods that resize lose the slots'
    contents."""

    def __init__(self, step_runner: StepRunner, prefixes: PrefixCache) -> None:
        self._step_runner = step_runner
        self._prefixes = prefixes
        self._initial_prefix_bytes = prefixes.capacity_bytes
        self._backoff = SlotBackoff(step_runner.initial_slots, self._resize)

    def segment_finished(self) -> None:
        """Count a finished segment."""
        self._backoff.finished()

    def should_grow(self) -> bool:
        """Whether it is time to try more slots."""
        return self._backoff.should_grow()

    def grow(self) -> bool:
        """Try twice as many slots. Returns False if there is no memory for them, or if there were no more."""
        return self._backoff.grow()

    def shrink(self) -> bool:
        """Halve the slots, more than once if there is no memory for half of them. Returns False if there is only one.
        Raises torch's error if there is no memory for one."""
        slots = self._step_runner.slots
        if slots == 1:
            self._backoff.reset_rounds()  # one segment alone was too large; the others need not be
            return False
        self._backoff.shrink()
        log_event(Event.OUT_OF_MEMORY, slots=slots, fewer=self._step_runner.slots)
        return True

    def _resize(self, slots: int) -> None:
        self._step_runner.resize(slots)
        self._prefixes.capacity_bytes = self._initial_prefix_bytes * slots // self._step_runner.initial_slots
