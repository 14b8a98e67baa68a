"""Keys and values of the slow transformer: fixed slots, each with positions of its own, in one piece of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cloner.engine.transformer import Attend, Stack, grouped


@dataclass(frozen=True)
class Fill:
    """Tokens that go into a slot together, from position `start` on."""

    slot: int
    start: int
    tokens: int


def position_bytes(stack: Stack, dtype: torch.dtype) -> int:
    """Bytes that one position takes: 112 KiB in S1-mini."""
    return 2 * len(stack) * stack.kv_heads * stack.head_dim * dtype.itemsize


class Cache:
    """Slots of a layer are ``[slots, kv_heads, positions, head_dim]``.

    The memory is taken once; `shape` divides it into many short slots or few long ones.
    """

    def __init__(self, stack: Stack, total_positions: int, dtype: torch.dtype, device: torch.device) -> None:
        self._stack = stack
        self._dtype = dtype
        self._device = device
        self._memory = self._taken(total_positions)
        self._rows = torch.arange(total_positions, device=device)
        self.total_positions = total_positions
        self.slots = self.positions = 0

    @property
    def nbytes(self) -> int:
        """Memory that all slots take."""
        return self._memory.nbytes

    def resize(self, total_positions: int) -> None:
        """Have memory for so many positions, at most as many as at the start, divided as before; what it held is lost.

        Where there is no memory for them, there is none at all until it is called again, with fewer.
        """
        # The old one goes first: there is no room for both.
        self._memory = self._slots = torch.empty(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._memory = self._taken(total_positions)
        self.total_positions = total_positions
        self.shape(self.positions)

    def _taken(self, total_positions: int) -> Tensor:
        # A position that nobody wrote yet is masked, and masked NaN would still spread.
        size = total_positions * self._stack.kv_heads * self._stack.head_dim
        return _zeros((len(self._stack), 2, size), self._dtype, self._device)

    def shape(self, positions: int) -> None:
        """Divide the memory anew; what it held is lost. Slots of `positions`, as many as fit."""
        self.positions = positions
        self.slots = self.total_positions // positions
        head_dim, kv_heads = self._stack.head_dim, self._stack.kv_heads
        used = self._memory[:, :, : self.slots * kv_heads * positions * head_dim]
        self._slots = used.view(len(self._stack), 2, self.slots, kv_heads, positions, head_dim)

    def stepping(self, positions: Tensor, length: int) -> Attend:
        """One token a slot, in the first ``len(positions)`` slots, each at its own of `positions`; `length` positions
        are looked at, so it must be greater than every one of them."""
        count = len(positions)
        rows = self._rows[:count]
        unseen = self._rows[:length] > positions[:, None]
        mask = torch.zeros(count, 1, 1, length, dtype=self._memory.dtype, device=self._memory.device)
        mask = mask.masked_fill(unseen[:, None, None], -torch.inf)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            stored_keys, stored_values = self._slots[layer]
            stored_keys[rows, :, positions] = keys.squeeze(1)
            stored_values[rows, :, positions] = values.squeeze(1)
            seen = functional.scaled_dot_product_attention(
                grouped(queries, self._stack.kv_heads),
                stored_keys[:count, :, :length],
                stored_values[:count, :, :length],
                attn_mask=mask,
            )
            return seen.reshape(count, 1, -1)

        return attend

    def filling(self, fills: Sequence[Fill]) -> Attend:
        """Many tokens for some slots, all slots' tokens in one row after another: ``[1, tokens, ...]``.

        The layers see one long row, without padding; only attention goes slot by slot.
        """
        sizes = [fill.tokens for fill in fills]
        masks = [
            torch.ones(fill.tokens, fill.start + fill.tokens, dtype=torch.bool, device=self._memory.device).tril(
                diagonal=fill.start
            )
            for fill in fills
        ]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            seen = []
            parts = zip(fills, masks, *(torch.split(x[0], sizes) for x in (queries, keys, values)), strict=True)
            for fill, mask, slot_queries, slot_keys, slot_values in parts:
                end = fill.start + fill.tokens
                stored = self._slots[layer, :, fill.slot]
                stored[0, :, fill.start : end] = slot_keys.transpose(0, 1)
                stored[1, :, fill.start : end] = slot_values.transpose(0, 1)
                part = functional.scaled_dot_product_attention(
                    slot_queries.transpose(0, 1)[None],
                    stored[0, None, :, :end],
                    stored[1, None, :, :end],
                    attn_mask=mask,
                    enable_gqa=True,
                )
                seen.append(part[0].transpose(0, 1).flatten(1))
            return torch.cat(seen)[None]

        return attend

    def read(self, slot: int, length: int) -> Tensor:
        """A copy of a slot's first positions, ``[layers, 2, kv_heads, length, head_dim]``."""
        return self._slots[:, :, slot, :, :length].clone()

    def write(self, slot: int, prefix: Tensor) -> None:
        """Put what `read` gave into a slot's first positions."""
        self._slots[:, :, slot, :, : prefix.shape[-2]] = prefix

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first positions over another's."""
        self._slots[:, :, target, :, :length] = self._slots[:, :, source, :, :length]

    def clear(self, slot: int) -> None:
        """Forget a slot that NaN got into."""
        self._slots[:, :, slot] = 0


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """As `torch.zeros`; on a CPU the system hands the memory out when it is written to, which most of it never is."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
