"""Rows, pages and a plain reference for the tests of attention over pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloner.engine.kernels.step.layout import (
    GROUP_ROWS,
    IDLE,
    OWNER,
    POSITION,
    RECORD_WIDTH,
    AttentionWeights,
    Heads,
    LayerCache,
    PromptRows,
    Scratch,
    SlotRows,
)
from cloner.engine.token_rows.rows import grouped

SIZES = Heads(heads=4, kv_heads=2, head_dim=16)
PAGE, TABLE, PAGES = 16, 10, 48
WIDTH = SIZES.heads * SIZES.head_dim


CASE = ([0, 16, 21], [(0, 0), (1, 1), (2, 15), (2, 16), (2, 17), (2, 0), (1, 33)])
ACTIVE = [0, 1, IDLE, 2, 3, 4, 5, 6]
"""A `Case` and its rows: no prefix, one that fills its last page, a first own position, own pages just full."""


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5, equal_nan=True)


def some(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attention(*, normed: bool = True) -> AttentionWeights:
    angle = torch.outer(torch.arange(160.0), 0.7 ** torch.arange(SIZES.head_dim // 2))
    rotation = torch.stack([angle.cos(), angle.sin()], -1).contiguous()
    weight = 1 + 0.1 * some(SIZES.heads + SIZES.kv_heads, SIZES.head_dim, seed=9)
    return AttentionWeights(SIZES, weight if normed else None, rotation, 1e-6)


def scratch(slots: int, parts: int) -> Scratch:
    heads = slots * SIZES.heads
    return Scratch(
        torch.zeros(heads * parts * SIZES.head_dim),
        torch.zeros(heads * parts * 2),
        torch.zeros(heads, dtype=torch.int32),
    )


@dataclass
class Case:
    """Owners with a voice's prefix and positions of their own; unwritten positions are NaN."""

    prefixes: list[int]
    owners: list[tuple[int, int]]
    """Voice, and positions of its own that are filled already."""

    def __post_init__(self) -> None:
        self.cache = LayerCache(*(some(PAGES, SIZES.kv_heads, PAGE, SIZES.head_dim, seed=seed) for seed in (1, 2)))
        self.table = torch.zeros(len(self.owners), TABLE, dtype=torch.int32)
        order = torch.randperm(PAGES - 1, generator=torch.Generator().manual_seed(3)) + 1
        free = iter(order.tolist())
        voices = {voice: [next(free) for _ in range(-(-n // PAGE))] for voice, n in enumerate(self.prefixes)}
        for voice, pages in voices.items():
            self._spoil(pages, self.prefixes[voice])
        for owner, (voice, own) in enumerate(self.owners):
            mine = [next(free) for _ in range(own // PAGE + 2)]
            self._spoil(mine, own)
            listed = [self.prefixes[voice], *voices[voice], *mine]
            self.table[owner, : len(listed)] = torch.tensor(listed, dtype=torch.int32)
        for page in free:
            self._spoil([page], 0)

    def _spoil(self, pages: list[int], filled: int) -> None:
        for number, page in enumerate(pages):
            for stored in (self.cache.keys, self.cache.values):
                stored[page, :, max(0, filled - number * PAGE) :] = torch.nan

    def copy_of_cache(self) -> LayerCache:
        return LayerCache(self.cache.keys.clone(), self.cache.values.clone())

    def decode_rows(self, active: list[int]) -> SlotRows:
        """Rows of these owners, `IDLE` among them; records stand in another order than rows."""
        slots = len(active)
        records = torch.zeros(slots + 1, RECORD_WIDTH, dtype=torch.int32)
        row_record = torch.full((slots,), IDLE, dtype=torch.int32)
        for row, owner in enumerate(active):
            if owner != IDLE:
                record = slots - 1 - row
                voice, own = self.owners[owner]
                records[record, POSITION], records[record, OWNER] = self.prefixes[voice] + own, owner
                row_record[row] = record
        rows = [row for row, owner in enumerate(active) if owner != IDLE]
        groups = torch.full((slots, GROUP_ROWS), IDLE, dtype=torch.int32)
        for number, group in enumerate(grouped([self.owners[active[row]][0] for row in rows])):
            groups[number] = torch.tensor([IDLE if at == IDLE else rows[at] for at in group], dtype=torch.int32)
        return SlotRows(records, row_record, self.table, groups)

    def prompt_rows(self, pieces: list[tuple[int, int]]) -> PromptRows:
        """Groups of (owner, so many tokens behind what it has already)."""
        rows = len(pieces) * GROUP_ROWS
        records = torch.zeros(rows, RECORD_WIDTH, dtype=torch.int32)
        records[:, POSITION] = IDLE
        at = {owner: self.prefixes[voice] + own for owner, (voice, own) in enumerate(self.owners)}
        for number, (owner, count) in enumerate(pieces):
            part = records[number * GROUP_ROWS : (number + 1) * GROUP_ROWS]
            part[:, OWNER] = owner
            part[:count, POSITION] = torch.arange(at[owner], at[owner] + count)
            at[owner] += count
        return PromptRows(records, torch.arange(rows, dtype=torch.int32), self.table)
