"""The segments that run, each in a slot of its own: how they get there, and how they leave."""

from __future__ import annotations

from collections import deque

import torch

from cloner.engine.base import ChunkObserver
from cloner.engine.slots.decoder import DRAWS, Decoder, SegmentStart
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.segment import SlotSegment
from cloner.engine.tokens import Prefill, Tokens


class RunningSlots:
    """Which segment is in which slot of the decoder. With `deterministic`, prompts are read one by one: several are
    read faster, but then the last bits of their values depend on each other's lengths."""

    def __init__(self, decoder: Decoder, prefixes: PrefixCache, *, deterministic: bool) -> None:
        self.prefixes = prefixes
        self.segments: list[SlotSegment | None] = []
        """By slot; None where a segment has left."""
        self._decoder = decoder
        self._deterministic = deterministic
        self._may_hold_nan = False
        """True if a slot's positions may hold NaN, which would reach the next segment there although it is masked."""

    def fill(self, waiting: deque[SlotSegment], slots: int, observer: ChunkObserver) -> list[SlotSegment]:
        """Give the free ones of the first `slots` to waiting segments, and return all that run, in the order of their
        slots: a step takes a number of slots, from the first on.

        If `observer` stops the chunk meanwhile, the prompts of the new ones may be incomplete.
        """
        admitted: list[tuple[int, SlotSegment]] = []
        for slot in range(slots):
            while waiting and observer.dropped(waiting[0].request.segment):
                waiting.popleft()
            if not waiting:
                break
            if slot == len(self.segments):
                self.segments.append(None)
            if self.segments[slot] is None:
                segment = self.segments[slot] = waiting.popleft()
                observer.started(segment.request.segment)
                admitted.append((slot, segment))
        if admitted:
            self._start(admitted, observer)
        self._close_gaps()
        return [segment for segment in self.segments if segment]

    def remove(self, segment: SlotSegment, *, not_finite: bool) -> None:
        """Free a segment's slot, which may hold NaN if something in it was `not_finite`."""
        self._may_hold_nan = self._may_hold_nan or not_finite
        self.segments[self.segments.index(segment)] = None

    def remove_all(self) -> list[SlotSegment]:
        """Free all slots; returns the segments that were there."""
        removed = [segment for segment in self.segments if segment]
        self.segments = []
        return removed

    def _start(self, admitted: list[tuple[int, SlotSegment]], observer: ChunkObserver) -> None:
        """Read the prompts of segments, by slot, and start them."""
        prefills = []
        for slot, segment in admitted:
            if self._may_hold_nan:
                self._decoder.cache.clear(slot)
            if not self.prefixes.copy_to_slot(segment.request.voice, slot, observer.stopped):
                return
            text = segment.text
            prefills.append(Prefill(slot, segment.prefix_tokens, Tokens(text.ids[:-1], text.codes[:-1])))
        for together in [[prefill] for prefill in prefills] if self._deterministic else [prefills]:
            if not self._decoder.prefill(together, observer.stopped):
                return
        for slot, segment in admitted:
            text, request = segment.text, segment.request
            segment.position = segment.prefix_tokens + len(text) - 1
            noise = torch.rand(segment.max_frames + 1, DRAWS, generator=torch.Generator().manual_seed(request.seed))
            last = Tokens(text.ids[-1:], text.codes[-1:])
            self._decoder.start(slot, segment.position, SegmentStart(last, request.generation, noise))

    def _close_gaps(self) -> None:
        """Move the last segments into free slots before them, so that steps get smaller."""
        while None in self.segments:
            last = self.segments.pop()
            if last is not None:
                slot = self.segments.index(None)
                self._decoder.move(len(self.segments), slot, last.position)
                self.segments[slot] = last
