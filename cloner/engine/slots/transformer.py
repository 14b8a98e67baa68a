"""Transformer layers over fish-speech's weights, for many segments at once.

The arithmetic is upstream's (``fish_speech.models.text2semantic.llama``): RMS norms, interleaved rotary positions,
grouped-query attention, SwiGLU. What differs is the owner of the cache: here a layer computes queries, keys and
values and calls `Attend`, so that slots may have positions of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cloner.engine.slots.packed_linear import PackedLinear


class Attend(Protocol):
    """Stores a layer's new keys and values ``[rows, tokens, kv_heads, head_dim]`` and attends with `queries`
    ``[rows, tokens, heads, head_dim]``; returns ``[rows, tokens, heads * head_dim]``."""

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Layer:
    """One layer's weights."""

    attention_norm: Tensor
    qkv: PackedLinear
    qk_norm: Tensor | None
    """``[heads + kv_heads, head_dim]``."""
    out: PackedLinear
    ffn_norm: Tensor
    gate_up: PackedLinear
    down: PackedLinear


class Stack:
    """Layers of one size. `rotation` is ``[positions, head_dim / 2]``, complex."""

    def __init__(self, blocks: Iterable[Any], frequencies: Tensor) -> None:
        """Takes the weights of upstream's `TransformerBlock`s and its table of rotary `frequencies`."""
        blocks = list(blocks)
        first = blocks[0].attention
        self.heads: int = first.n_head
        self.kv_heads: int = first.n_local_heads
        self.head_dim: int = first.head_dim
        self._eps: float = blocks[0].ffn_norm.eps
        self._layers = [_layer(block) for block in blocks]
        self.rotation = torch.view_as_complex(frequencies.float().contiguous())

    def __len__(self) -> int:
        return len(self._layers)

    def run(self, x: Tensor, rotation: Tensor, attend: Attend) -> Tensor:
        """`x` ``[rows, tokens, dim]`` after all layers; `rotation` is each token's,
        ``[rows, tokens, 1, head_dim / 2]`` or a shape that broadcasts to it."""
        for number, layer in enumerate(self._layers):
            queries, keys, values = self._project(x, layer, rotation)
            x = x + layer.out(attend(number, queries, keys, values))
            gate, up = layer.gate_up(norm(x, layer.ffn_norm, self._eps)).chunk(2, dim=-1)
            x = x + layer.down(functional.silu(gate) * up)
        return x

    def _project(self, x: Tensor, layer: _Layer, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = layer.qkv(norm(x, layer.attention_norm, self._eps))
        projected = projected.view(*projected.shape[:-1], -1, self.head_dim)
        turned, values = projected.tensor_split((self.heads + self.kv_heads,), dim=-2)
        if layer.qk_norm is not None:
            turned = functional.rms_norm(turned, (self.head_dim,), eps=self._eps) * layer.qk_norm
        turned = rotate(turned, rotation)
        queries, keys = turned.tensor_split((self.heads,), dim=-2)
        return queries, keys, values


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last dimension."""
    return functional.rms_norm(x, weight.shape, weight, eps)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions on neighbouring pairs, in fp32 as in upstream."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).type_as(x)


def grouped(queries: Tensor, kv_heads: int) -> Tensor:
    """``[rows, 1, heads, head_dim]`` as ``[rows, kv_heads, heads / kv_heads, head_dim]``: the queries that share a key
    head take the dimension of tokens, so that attention copies no keys."""
    return queries.reshape(len(queries), kv_heads, -1, queries.shape[-1])


def _layer(block: Any) -> _Layer:
    attention, ffn = block.attention, block.feed_forward
    qk_norm = None
    if attention.attention_qk_norm:
        qk_norm = torch.cat(
            [
                attention.q_norm.weight.expand(attention.n_head, -1),
                attention.k_norm.weight.expand(attention.n_local_heads, -1),
            ]
        )
    return _Layer(
        attention_norm=block.attention_norm.weight,
        qkv=PackedLinear.from_linears(attention.wqkv),
        qk_norm=qk_norm,
        out=PackedLinear.from_linears(attention.wo),
        ffn_norm=block.ffn_norm.weight,
        gate_up=PackedLinear.from_linears(ffn.w1, ffn.w3),
        down=PackedLinear.from_linears(ffn.w2),
    )
