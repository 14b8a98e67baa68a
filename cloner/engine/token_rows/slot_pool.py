"""The device's slots and pages: who has which, and how many there are where memory runs out."""

from __future__ import annotations

from enum import Enum

from cloner.engine.slot_backoff import SlotBackoff
from cloner.engine.token_rows.device import StepDevice
from cloner.engine.token_rows.paged_cache import PageAllocator, PagedPrefixCache
from cloner.engine.token_rows.segments import RowSegment
from cloner.events import Event
from cloner.logs import log_event


class Placed(Enum):
    """What became of a segment that wants a slot."""

    WITH_NEW_PREFIX = "its voice's prefix is still to be read"
    WITH_KNOWN_PREFIX = "its voice's prefix is read, or being read"
    LATER = "when others are finished"
    NEVER = "there is not as much memory"


class SlotPool:
    """Slots, pages and prefixes of a device."""

    def __init__(self, device: StepDevice) -> None:
        self.device = device
        self.backoff = SlotBackoff(device.slots, self._resize)
        self._empty()

    @property
    def slots(self) -> int:
        """Slots at present: fewer than at the start, where memory ran out."""
        return self.backoff.slots

    @property
    def free(self) -> int:
        """Slots that no segment has."""
        return len(self._free)

    def place(self, segment: RowSegment, *, idle: bool) -> Placed:
        """Give the segment a slot and pages. `idle` if no segment has any, so that the number of slots may change."""
        if idle and self.backoff.should_grow():
            self.backoff.grow()
        # What runs is finished before there are more slots, because growing loses what is in them.
        if not self._free or (self.backoff.should_grow() and not idle):
            return Placed.LATER
        room = self.prefixes.acquire(segment.request.voice.key, len(segment.prefix_tokens), segment.own_pages)
        if room is None:
            if not idle:
                return Placed.LATER
            return self.place(segment, idle=True) if self.backoff.grow() else Placed.NEVER
        segment.prefix, segment.pages, is_new = room
        segment.slot = self._free.pop()
        return Placed.WITH_NEW_PREFIX if is_new else Placed.WITH_KNOWN_PREFIX

    def release(self, segment: RowSegment, *, not_finite: bool) -> None:
        """Free a segment's slot and pages. Those that may hold NaN are cleared, and no other segment gets its
        prefix."""
        prefix = segment.held_prefix
        if not_finite:
            self.prefixes.forget(prefix)
            self.device.clear_pages(segment.pages)
        self.device.clear_pages(self.prefixes.release(prefix))
        self._allocator.release(segment.pages)
        self._free.append(segment.slot)

    def reset(self) -> None:
        """No segment has a slot any more."""
        self.device.reset()
        self._empty()

    def shrink(self) -> None:
        """Memory ran out, and no segment has a slot any more: half as many slots, or fewer. If there was only one, its
        segment was too much, and the others may not be. Raises torch's error where there is no memory for one slot."""
        slots = self.slots
        if slots == 1:
            self.backoff.reset_rounds()
            self.reset()
            return
        self.backoff.shrink()
        log_event(Event.OUT_OF_MEMORY, slots=slots, fewer=self.slots)

    def _resize(self, slots: int) -> None:
        self.device.resize(slots)
        self._empty()

    def _empty(self) -> None:
        self._allocator = PageAllocator(self.device.pages)
        self.prefixes = PagedPrefixCache(self._allocator)
        self._free = list(range(self.device.slots))[::-1]
