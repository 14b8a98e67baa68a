"""A device for the scheduler of token rows that computes nothing, but notices whatever a real one could not forgive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cloner.engine.base import SpeechRequest, Voice
from cloner.engine.kernels.step.layout import CONTINUES, PAGE
from cloner.engine.token_rows.device import Statuses, StepRows
from cloner.engine.token_rows.paged_cache import RESERVED
from cloner.engine.token_rows.rows import SlotStart
from cloner.engine.tokens import Tokens
from cloner.errors import SegmentFailed

PREFIX = 70
"""Tokens of every voice's prefix."""


def ask_for_too_much() -> None:
    """Make the allocator say what it says where there is no memory."""
    torch.empty(2**50)


class FakePrompts:
    """A text of n characters is n tokens."""

    def prefix(self, _voice: Voice) -> Tokens:
        return Tokens(torch.arange(PREFIX), torch.zeros(PREFIX, 10, dtype=torch.long))

    def text(self, request: SpeechRequest) -> Tokens:
        count = len(request.text)
        return Tokens(torch.arange(count), torch.zeros(count, 10, dtype=torch.long))

    def check_length(self, tokens: int) -> None:
        if tokens > 2000:
            raise SegmentFailed("too long", code="prompt_too_long")


@dataclass
class FakeDevice:
    """`status` says what becomes of a slot's segment at a frame."""

    full_slots: int
    pages_each: int = 6
    pipeline_depth: int = 1
    prompt_rows: int = 64
    status: Callable[[SlotStart, int], int] = lambda _start, _frame: CONTINUES
    before_launch: Callable[[StepRows], None] = lambda _rows: None
    most_slots: int = 10**9
    """There is no memory for more."""
    rows: list[tuple[int, ...]] = field(default_factory=list)
    """Slots of every step."""
    read: list[int] = field(default_factory=list)
    """Prompt tokens of every step."""
    starts: list[tuple[int, int, int]] = field(default_factory=list)
    """Steps launched before a segment was admitted, its slot, and its steps at most."""
    cleared: list[int] = field(default_factory=list)
    resets: int = 0

    def __post_init__(self) -> None:
        self.slots = self.full_slots
        self._forget()

    @property
    def pages(self) -> int:
        return RESERVED + self.pages_each * self.slots

    @property
    def cache_bytes(self) -> int:
        return self.pages

    def reset(self) -> None:
        self.resets += 1
        self._forget()

    def resize(self, slots: int) -> None:
        self._forget()
        if slots > self.most_slots:
            ask_for_too_much()
        self.slots = slots

    def admit(self, slot: int, start: SlotStart) -> None:
        assert 0 <= slot < self.slots
        owned = [*start.prefix_pages, *start.own_pages]
        assert len(set(owned)) == len(owned)
        assert all(RESERVED <= page < self.pages for page in owned)
        own_positions = start.position + 1 - start.prefix + len(start.noise) - 1
        assert len(start.own_pages) * PAGE >= own_positions, "its pages hold all of its frames"
        self.starts.append((len(self.rows), slot, len(start.noise)))
        self._starts[slot], self._frames[slot], self._read_to[slot] = start, 0, start.prefix

    def set_prefix(self, slot: int, pages: Sequence[int]) -> int:
        owner = self.slots + slot
        self._read_to[owner] = 0
        self._prefix_of[owner] = tuple(pages)
        return owner

    def launch(self, rows: StepRows) -> Statuses:
        self.before_launch(rows)
        assert sum(piece.rows for piece in rows.prompts) <= self.prompt_rows
        for piece in rows.prompts:
            assert piece.position == self._read_to[piece.owner], "a prompt is read in order"
            self._read_to[piece.owner] += len(piece)
            if piece.owner >= self.slots:
                if self._read_to[piece.owner] == PREFIX:
                    self._known.add(self._prefix_of[piece.owner])
            else:
                assert tuple(self._starts[piece.owner].prefix_pages) in self._known, "after its voice's prefix"
        assert len(set(rows.slots)) == len(rows.slots) == len(rows.voices)
        statuses = []
        for slot in rows.slots:
            start = self._starts[slot]
            assert self._read_to[slot] == start.position, "all of the prompt but its last token was read"
            assert tuple(start.prefix_pages) in self._known
            statuses.append(self.status(start, self._frames[slot]))
            self._frames[slot] += 1
        held = [page for slot in rows.slots for page in self._starts[slot].own_pages]
        held += {page for slot in rows.slots for page in self._starts[slot].prefix_pages}
        if self.pipeline_depth == 0:  # else a finished segment may still be stepped beside the next owner of its pages
            assert len(set(held)) == len(held), "no page has two owners"
        self.rows.append(rows.slots)
        self.read.append(sum(len(piece) for piece in rows.prompts))
        return lambda: statuses

    def codes(self, slot: int, frames: int) -> Tensor:
        """Its own noise, so that tests see whose codes they are."""
        return (self._starts[slot].noise[:frames, :10] * 1000).int().T

    def clear_pages(self, pages: Iterable[int]) -> None:
        self.cleared += pages

    def _forget(self) -> None:
        self._starts: dict[int, SlotStart] = {}
        self._frames: dict[int, int] = {}
        self._read_to: dict[int, int] = {}
        self._prefix_of: dict[int, tuple[int, ...]] = {}
        self._known: set[tuple[int, ...]] = set()
