"""The decoding step over token rows: every running segment's next frame, and pieces of prompts beside them.

A step takes decode rows and prompt rows through the slow transformer together, chooses the decode rows' first codes and
makes the other nine with the fast transformer. It is a fixed sequence of kernels over buffers that are there from the
start: on a GPU one graph a number of rows holds it. A segment is decoded in the very step that reads the last of its
prompt, because a layer stores all prompt rows' keys before any row attends.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloner.engine.kernels.launch import early_launches
from cloner.engine.kernels.step.kernel_set import KernelSet
from cloner.engine.kernels.step.layout import CODEBOOKS, FAST_POSITIONS, LayerCache, Scratch
from cloner.engine.kernels.step.linear import RowNorm
from cloner.engine.kernels.step.tiles import (
    Architecture,
    Product,
    Tile,
    attention_parts,
    most_parts,
    starts_early,
    tile_of,
)
from cloner.engine.token_rows.paged_cache import PagedCache
from cloner.engine.token_rows.rows import TokenRows
from cloner.engine.token_rows.weights import LayerWeights, StepWeights

PADDING = 128
"""Buffers have a multiple of so many rows, so that products need no masks."""

MOST_PARTS = 16
"""Programs over which one row's attention is spread at most."""


def padded(rows: int) -> int:
    """The next multiple of `PADDING`."""
    return -(-rows // PADDING) * PADDING


@dataclass(frozen=True)
class Activations:
    """Of one transformer: the residual stream `x` ``[rows, dim]`` with partial sums of its squares, and what is between
    a layer's products."""

    x: Tensor
    squares: Tensor
    qkv: Tensor
    attended: Tensor
    gated: Tensor

    @classmethod
    def zeros(cls, rows: int, layer: LayerWeights) -> Activations:
        like, dim = layer.qkv, layer.qkv.shape[1]
        widths = (dim, layer.qkv.shape[0], layer.out.shape[1], layer.down.shape[1])
        x, qkv, attended, gated = (like.new_zeros(padded(rows), width) for width in widths)
        squares = like.new_zeros(padded(rows) * most_parts(dim), dtype=torch.float32)
        return cls(x, squares, qkv, attended, gated)


class TokenStep:
    """Weights, activations and the sequence of kernels, for the rows and the cache it is given."""

    def __init__(
        self,
        weights: StepWeights,
        rows: TokenRows,
        cache: PagedCache,
        kernels: KernelSet,
        gpu: Architecture,
        *,
        resampling: bool = True,
    ) -> None:
        self.kernels = kernels
        self._weights, self._rows, self._cache, self._gpu = weights, rows, cache, gpu
        self._resampling = resampling
        slots, total = rows.slots, rows.slots + len(rows.prompt.records)
        head = weights.head
        self._slow = Activations.zeros(total, weights.slow[0])
        self._fast = Activations.zeros(2 * slots, weights.fast[0])
        self.logits = head.new_zeros(padded(slots), head.shape[0], dtype=torch.float32)
        self.fast_logits = head.new_zeros(padded(2 * slots), weights.fast_head.shape[0], dtype=torch.float32)
        sizes = weights.fast[0].attention.heads
        fast_shape = (len(weights.fast), 2, slots, sizes.kv_heads, FAST_POSITIONS, sizes.head_dim)
        self._fast_cache = head.new_zeros(fast_shape)
        self._scratch = self._make_scratch(slots)

    def run(self, decode: int, prompts: int) -> None:
        """Launch a step over the first `decode` decode rows and the first `prompts` prompt rows."""
        self._read_tokens(decode, prompts)
        for number, layer in enumerate(self._weights.slow):
            self._slow_layer(layer, self._cache.layer(number), decode, prompts)
        with early_launches(enabled=starts_early(decode, self._gpu)):
            self._first_codes(decode, decode + prompts)
            for book in range(1, CODEBOOKS):
                self._next_codes(decode, book)

    def _read_tokens(self, decode: int, prompts: int) -> None:
        tables, parts = self._weights.embeddings, self._parts(Product.DOWN, decode + prompts)
        x, squares = self._slow.x, self._slow.squares
        slots = self._rows.decode
        self.kernels.embed(slots.records, slots.row_record, tables, x, squares, decode, parts)
        if prompts:
            rows = self._rows.prompt
            x, squares = x[decode:], squares[decode * parts :]
            self.kernels.embed(rows.records, rows.row_record, tables, x, squares, prompts, parts)

    def _slow_layer(self, layer: LayerWeights, cache: LayerCache, decode: int, prompts: int) -> None:
        now, rows = self._slow, decode + prompts
        self._normed(Product.SLOW_QKV, Product.DOWN, now, layer.qkv, now.qkv, rows)
        if prompts:
            qkv, out = now.qkv[decode:], now.attended[decode:]
            self.kernels.attend_prompt(qkv, out, self._rows.prompt, layer.attention, cache, prompts)
        self.kernels.attend_decode(
            now.qkv,
            now.attended,
            self._rows.decode,
            layer.attention,
            cache,
            self._scratch,
            decode,
            attention_parts(decode),
            self._gpu.attend_stages,
        )
        self._residual(Product.SLOW_OUT, now, layer.out, now.attended, rows)
        self._feed_forward(Product.SLOW_OUT, now, layer, rows)

    def _first_codes(self, decode: int, rows: int) -> None:
        weights = self._weights
        # The slow residual stream was last written by a product over all rows of the step.
        norm = RowNorm(self._slow.squares, self._parts(Product.DOWN, rows), weights.eps)
        self._product(Product.SLOW_QKV, self._slow.x, weights.head, self.logits, decode, norm=norm)
        self.kernels.sample_first(
            self.logits,
            self._rows.decode,
            self._rows.sampler,
            self._slow.x,
            weights.fast_embeddings,
            self._fast.x,
            self._fast.squares,
            decode,
            self._parts(Product.DOWN, 2 * decode),
            first_semantic=weights.embeddings.first_semantic,
            resampling=self._resampling,
        )

    def _next_codes(self, decode: int, book: int) -> None:
        weights, now, first = self._weights, self._fast, book == 1
        # The hidden state and the first code are both known, so the fast transformer starts with two positions.
        rows = 2 * decode if first else decode
        for number, layer in enumerate(weights.fast):
            keys, values = self._fast_cache[number]
            self._normed(Product.FAST_QKV, Product.DOWN, now, layer.qkv, now.qkv, rows)
            cache = LayerCache(keys, values)
            self.kernels.attend_fast(now.qkv, now.attended, layer.attention, cache, decode, book, first=first)
            self._residual(Product.FAST_OUT, now, layer.out, now.attended, rows)
            self._feed_forward(Product.FAST_OUT, now, layer, rows)
        self._normed(Product.FAST_QKV, Product.DOWN, now, weights.fast_head, self.fast_logits, rows)
        self.kernels.sample_next(
            self.fast_logits,
            self._rows.decode,
            self._rows.sampler,
            weights.fast_embeddings,
            now.x,
            now.squares,
            decode,
            self._parts(Product.DOWN, decode),
            book,
            last_position=weights.positions - 1,
        )

    def _feed_forward(self, before: Product, now: Activations, layer: LayerWeights, rows: int) -> None:
        self._normed(Product.GATE_UP, before, now, layer.gate_up, now.gated, rows, gated=True)
        self._residual(Product.DOWN, now, layer.down, now.gated, rows)

    def _normed(
        self,
        product: Product,
        before: Product,
        now: Activations,
        weight: Tensor,
        out: Tensor,
        rows: int,
        *,
        gated: bool = False,
    ) -> None:
        """A product of the normed residual stream, which the product `before` wrote."""
        norm = RowNorm(now.squares, self._parts(before, rows), self._weights.eps)
        self._product(product, now.x, weight, out, rows, norm=norm, gated=gated)

    def _residual(self, product: Product, now: Activations, weight: Tensor, x: Tensor, rows: int) -> None:
        """A product that is added to the residual stream."""
        self._product(product, x, weight, now.x, rows, residual_squares=now.squares)

    def _product(
        self,
        product: Product,
        x: Tensor,
        weight: Tensor,
        out: Tensor,
        rows: int,
        *,
        norm: RowNorm | None = None,
        gated: bool = False,
        residual_squares: Tensor | None = None,
    ) -> None:
        n, k = weight.shape
        tile = tile_of(product, rows, n // 2 if gated else n, k, self._gpu)
        options = {"norm": norm, "gated": gated, "residual_squares": residual_squares}
        self.kernels.linear(x, weight, out, rows, tile, self._scratch, **options)

    def _tile(self, product: Product, rows: int) -> Tile:
        """Of a product that is added to the residual stream."""
        layer = (self._weights.fast if product is Product.FAST_OUT else self._weights.slow)[0]
        weight = layer.down if product is Product.DOWN else layer.out
        return tile_of(product, rows, weight.shape[0], weight.shape[1], self._gpu)

    def _parts(self, product: Product, rows: int) -> int:
        """Partial sums of squares that such a product leaves of each row."""
        return self._weights.dim // self._tile(product, rows).bn

    def _make_scratch(self, slots: int) -> Scratch:
        """For the widest split product and for attention with most parts."""
        weights, sizes = self._weights, self._weights.slow[0].attention.heads
        products = 0
        for rows in (16, 32, 64, 128):  # the tables split k for few rows only
            for product in (Product.SLOW_OUT, Product.DOWN, Product.FAST_OUT):
                tile = self._tile(product, rows)
                if tile.split > 1:
                    products = max(products, tile.split * padded(rows) * weights.dim)
        attention = slots * sizes.heads * MOST_PARTS * sizes.head_dim
        like = weights.head
        return Scratch(
            partial=like.new_zeros(max(products, attention), dtype=torch.float32),
            norms=like.new_zeros(slots * sizes.heads * MOST_PARTS * 2, dtype=torch.float32),
            arrived=like.new_zeros(max(4096, slots * sizes.heads), dtype=torch.int32),
        )
