"""Keys and values of the slow transformer: fixed slots, each with positions of its own, in one piece of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cloner.engine.slots.transformer import Attend, Stack, grouped
from cloner.engine.tokens import Prefill


def position_bytes(stack: Stack, dtype: torch.dtype) -> int:
    """Bytes that one position takes: 112 KiB in S1-mini."""
    return 2 * len(stack) * stack.kv_heads * stack.head_dim * dtype.itemsize


class KVCache:
    """`slots` of a layer are ``[slots, kv_heads, positions, head_dim]``.

    The memory is allocated once; `partition` divides it into many short slots or few long ones.
    """

    def __init__(self, stack: Stack, slots: int, positions: int, dtype: torch.dtype, device: torch.device) -> None:
        self._stack = stack
        self._dtype = dtype
        self._device = device
        self.total_positions = slots * positions
        self._memory = self._allocate(self.total_positions)
        self._rows = torch.arange(self.total_positions, device=device)
        self.partition(positions)

    @property
    def nbytes(self) -> int:
        """Bytes that all slots take."""
        return self._memory.nbytes

    def resize(self, total_positions: int) -> None:
        """Reallocate for `total_positions`, at most as many as at the start, in slots as long as before. Contents are
        lost.

        If the allocation fails, the cache has no memory until `resize` is called again with fewer positions.
        """
        # The old memory is released first: the device may not hold both.
        self._memory = self._slots = torch.empty(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._memory = self._allocate(total_positions)
        self.total_positions = total_positions
        self.partition(self.positions)

    def _allocate(self, total_positions: int) -> Tensor:
        # Positions that were not written yet are masked, but NaN there would spread in spite of the mask.
        size = total_positions * self._stack.kv_heads * self._stack.head_dim
        return _zeros((len(self._stack), 2, size), self._dtype, self._device)

    def partition(self, positions: int) -> None:
        """Divide the memory into slots of `positions`, as many as fit. Contents are lost."""
        self.positions = positions
        self.slots = self.total_positions // positions
        head_dim, kv_heads = self._stack.head_dim, self._stack.kv_heads
        used = self._memory[:, :, : self.slots * kv_heads * positions * head_dim]
        self._slots = used.view(len(self._stack), 2, self.slots, kv_heads, positions, head_dim)

    def decode_attention(self, positions: Tensor, length: int) -> Attend:
        """Attention of one token a slot, for the first ``len(positions)`` slots, each token at its slot's entry of
        `positions`. It covers the first `length` positions, so `length` must be greater than every entry."""
        count = len(positions)
        rows = self._rows[:count]
        unseen = self._rows[:length] > positions[:, None]
        mask = torch.zeros(count, 1, 1, length, dtype=self._memory.dtype, device=self._memory.device)
        mask = mask.masked_fill(unseen[:, None, None], -torch.inf)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            stored_keys, stored_values = self._slots[layer]
            stored_keys[rows, :, positions] = keys.squeeze(1)
            stored_values[rows, :, positions] = values.squeeze(1)
            attended = functional.scaled_dot_product_attention(
                grouped(queries, self._stack.kv_heads),
                stored_keys[:count, :, :length],
                stored_values[:count, :, :length],
                attn_mask=mask,
            )
            return attended.reshape(count, 1, -1)

        return attend

    def prefill_attention(self, prefills: Sequence[Prefill]) -> Attend:
        """Attention of many tokens for some slots, the tokens of all slots concatenated: ``[1, tokens, ...]``.

        The layers compute one long row, without padding; only attention goes slot by slot.
        """
        sizes = [len(prefill.tokens) for prefill in prefills]
        masks = [
            torch.ones(len(prefill.tokens), prefill.end, dtype=torch.bool, device=self._memory.device).tril(
                diagonal=prefill.start
            )
            for prefill in prefills
        ]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            attended = []
            by_slot = zip(prefills, masks, *(torch.split(x[0], sizes) for x in (queries, keys, values)), strict=True)
            for prefill, mask, slot_queries, slot_keys, slot_values in by_slot:
                stored = self._slots[layer, :, prefill.slot]
                stored[0, :, prefill.start : prefill.end] = slot_keys.transpose(0, 1)
                stored[1, :, prefill.start : prefill.end] = slot_values.transpose(0, 1)
                slot_attended = functional.scaled_dot_product_attention(
                    slot_queries.transpose(0, 1)[None],
                    stored[0, None, :, : prefill.end],
                    stored[1, None, :, : prefill.end],
                    attn_mask=mask,
                    enable_gqa=True,
                )
                attended.append(slot_attended[0].transpose(0, 1).flatten(1))
            return torch.cat(attended)[None]

        return attend

    def read(self, slot: int, length: int) -> Tensor:
        """A copy of a slot's first `length` positions, ``[layers, 2, kv_heads, length, head_dim]``."""
        return self._slots[:, :, slot, :, :length].clone()

    def write(self, slot: int, prefix: Tensor) -> None:
        """Write what `read` returned into a slot's first positions."""
        self._slots[:, :, slot, :, : prefix.shape[-2]] = prefix

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions over another's."""
        self._slots[:, :, target, :, :length] = self._slots[:, :, source, :, :length]

    def clear(self, slot: int) -> None:
        """Set a slot to zero, after NaN was written to it."""
        self._slots[:, :, slot] = 0


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """As `torch.zeros`. On a CPU, `numpy` leaves it to the system to map each page when it is first written, and most
    pages never are."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
