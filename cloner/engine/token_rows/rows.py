"""The rows of a step as the device sees them, and how the host changes them: by copies alone, without a launch.

Copies start in pinned memory and are not waited for. A slot's memory there is written again only when its segment is
finished. What changes from step to step has `RING` places in turn: two are used a step, and few steps are under way.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloner.batch import Generation
from cloner.engine.kernels.step.layout import (
    CODEBOOKS,
    CODES,
    DRAWS,
    GROUP_ROWS,
    IDLE,
    OWNER,
    POSITION,
    RECORD_WIDTH,
    TOKEN,
    PromptRows,
    SamplerBuffers,
    SlotRows,
)
from cloner.engine.sampling import PENALTY_WINDOW
from cloner.engine.tokens import Tokens

RING = 8


@dataclass(frozen=True)
class SlotStart:
    """How a segment begins in its slot: the prompt's `last` token, which is decoded and not read, at `position`;
    `prefix` positions are the voice's, in `prefix_pages`, the others in `own_pages`; `noise` ``[steps, DRAWS]``."""

    last: Tokens
    position: int
    prefix: int
    prefix_pages: Sequence[int]
    own_pages: Sequence[int]
    generation: Generation
    noise: Tensor


@dataclass(frozen=True)
class PromptPiece:
    """Prompt tokens of one owner, the first at `position`."""

    owner: int
    position: int
    tokens: Tokens

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def rows(self) -> int:
        """Rows that it takes: whole groups."""
        return -(-len(self) // GROUP_ROWS) * GROUP_ROWS

    def cut(self, count: int) -> tuple[PromptPiece, PromptPiece]:
        """The first `count` tokens, and the others."""
        head, rest = some(self.tokens, slice(count)), some(self.tokens, slice(count, None))
        return PromptPiece(self.owner, self.position, head), PromptPiece(self.owner, self.position + count, rest)


@dataclass(frozen=True)
class _Staged:
    """Pinned memory of the host, and the same memory as an array: writing a few numbers there costs a tenth of what it
    does through torch."""

    pinned: Tensor
    host: NDArray[Any]

    @classmethod
    def of(cls, pinned: Tensor) -> _Staged:
        return cls(pinned, pinned.numpy())


class TokenRows:
    """Buffers for `slots` decode rows and `prompts` prompt rows. Owner s of the page table is slot s; owner ``slots +
    s`` is the prefix that is read for it."""

    def __init__(self, slots: int, prompts: int, frames: int, table_width: int, device: torch.device) -> None:
        self.slots = slots

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        def staged(*shape: int, dtype: torch.dtype = torch.int32) -> _Staged:
            return _Staged.of(torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda"))

        table = zeros(2 * slots, table_width)
        # On the `meta` device torch would compute a sum and a range in Python, and import its compiler for that: 1.4 s.
        idle = torch.full((slots,), IDLE, dtype=torch.int32, device=device)
        self.decode = SlotRows(zeros(slots + 1, RECORD_WIDTH), idle, table, zeros(slots, GROUP_ROWS))
        index = torch.arange(prompts, dtype=torch.int32).to(device)
        self.prompt = PromptRows(zeros(prompts, RECORD_WIDTH), index, table)
        self.sampler = SamplerBuffers(
            noise=zeros(slots + 1, frames, DRAWS, dtype=torch.float32),
            window=zeros(slots + 1, CODEBOOKS, PENALTY_WINDOW),
            generated=zeros(slots + 1, frames, CODEBOOKS, dtype=torch.int16),
            verdict=zeros(slots),
            status=zeros(slots),
        )
        self._records = staged(slots, RECORD_WIDTH)
        self._table = staged(2 * slots, table_width)
        self._noise = staged(slots, frames, DRAWS, dtype=torch.float32)
        self._row_ring = staged(RING, slots)
        self._group_ring = staged(RING, slots, GROUP_ROWS)
        self._prompt_ring = staged(RING, prompts, RECORD_WIDTH)
        self._turn = 0
        self.idle()

    def idle(self) -> None:
        """No row is active: what a step does then changes no slot."""
        self.decode.row_record.fill_(IDLE)
        self.decode.groups.fill_(IDLE)
        self.prompt.records[:, POSITION] = -1

    def admit(self, slot: int, start: SlotStart) -> None:
        """Give a slot to a segment."""
        self.set_pages(slot, start.prefix, [*start.prefix_pages, *start.own_pages])
        g = start.generation
        record = self._records.host[slot]
        # Upstream does not look for an end at the first frame.
        numbers = [int(start.last.ids[0]), start.position, 0, max(1, g.min_new_tokens), slot]
        record[: len(numbers)] = numbers
        floats = np.array([g.temperature, g.top_p, g.repetition_penalty], dtype=np.float32)
        record[len(numbers) : CODES] = floats.view(np.int32)
        record[CODES : CODES + CODEBOOKS] = start.last.codes[0].numpy()
        self.decode.records[slot].copy_(self._records.pinned[slot], non_blocking=True)
        steps = len(start.noise)
        self._noise.host[slot, :steps] = start.noise.numpy()
        self.sampler.noise[slot, :steps].copy_(self._noise.pinned[slot, :steps], non_blocking=True)

    def set_pages(self, owner: int, prefix: int, pages: Sequence[int]) -> None:
        """An owner's list of pages; behind it stands page 0."""
        row = self._table.host[owner]
        row[0] = prefix
        row[1 : 1 + len(pages)] = pages
        row[1 + len(pages) :] = 0
        self.decode.page_table[owner].copy_(self._table.pinned[owner], non_blocking=True)

    def set_decode(self, slots: Sequence[int], voices: Sequence[Hashable]) -> None:
        """The decode rows from now on: a slot and its voice each."""
        self._turn = (self._turn + 1) % RING
        rows, groups = self._row_ring.host[self._turn], self._group_ring.host[self._turn]
        rows[: len(slots)] = slots
        rows[len(slots) :] = IDLE
        listed = grouped(voices)
        if listed:
            groups[: len(listed)] = listed
        groups[len(listed) :] = IDLE
        self.decode.row_record.copy_(self._row_ring.pinned[self._turn], non_blocking=True)
        self.decode.groups.copy_(self._group_ring.pinned[self._turn], non_blocking=True)

    def set_prompts(self, pieces: Sequence[PromptPiece], rows: int) -> None:
        """The first `rows` prompt rows of the next step."""
        self._turn = (self._turn + 1) % RING
        ring = self._prompt_ring.host[self._turn, :rows]
        ring[:, TOKEN] = 0
        ring[:, POSITION] = -1
        row = 0
        for piece in pieces:
            part = ring[row : row + len(piece)]
            part[:, TOKEN] = piece.tokens.ids.numpy()
            part[:, POSITION] = np.arange(piece.position, piece.position + len(piece))
            part[:, CODES : CODES + CODEBOOKS] = piece.tokens.codes.numpy()
            ring[row : row + piece.rows, OWNER] = piece.owner
            row += piece.rows
        self.prompt.records[:rows].copy_(self._prompt_ring.pinned[self._turn, :rows], non_blocking=True)

    def codes(self, slot: int, frames: int) -> Tensor:
        """A copy of the codes that a slot has generated, ``[codebooks, frames]`` int32, on the device."""
        return self.sampler.generated[slot, :frames].T.to(torch.int32)


def some(tokens: Tokens, part: slice) -> Tokens:
    """Part of the tokens."""
    return Tokens(tokens.ids[part], tokens.codes[part])


def grouped(voices: Sequence[Hashable]) -> list[list[int]]:
    """Rows of one voice together, `GROUP_ROWS` at most, the rest `IDLE`; each row stands in one group."""
    groups: list[list[int]] = []
    open_groups: dict[Hashable, list[int]] = {}
    for row, voice in enumerate(voices):
        group = open_groups.get(voice)
        if group is None or len(group) == GROUP_ROWS:
            group = open_groups[voice] = []
            groups.append(group)
        group.append(row)
    return [group + [IDLE] * (GROUP_ROWS - len(group)) for group in groups]
