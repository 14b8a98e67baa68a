"""Queries and keys as attention wants them: RMS norm of each head, then rotary embedding of neighbouring pairs.

For a head h ``[head_dim]`` with weight w at position p, with c and s the cosine and sine of pair i at p (Su et al.,
RoFormer, 2021)::

    h = h * rsqrt(mean(h^2) + eps) * w            where the model norms queries and keys
    h[2i], h[2i + 1] = h[2i] c - h[2i + 1] s, h[2i] s + h[2i + 1] c

Every intermediate is rounded to the model's precision, as torch's own operations do it one after another.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.step.layout import AttentionWeights

LOG2E = 1.4426950408889634
"""Scores are multiplied by it, so that softmax can use powers of two."""


@triton.jit
def rotated(base, mask, weight, cos, sin, eps, NORMED: tl.constexpr, HEAD: tl.constexpr, dtype: tl.constexpr):
    """Heads at `base` (pointers to their even elements ``[n, HEAD / 2]``), normed and rotated: even and odd elements.
    `weight` points to the norm's even elements."""
    even = tl.load(base, mask, 0.0).to(tl.float32)
    odd = tl.load(base + 1, mask, 0.0).to(tl.float32)
    if NORMED:
        factor = tl.rsqrt(tl.sum(even * even + odd * odd, 1) / HEAD + eps)[:, None]
        even = (even * factor).to(dtype).to(tl.float32)
        odd = (odd * factor).to(dtype).to(tl.float32)
        even = (even * tl.load(weight).to(tl.float32)).to(dtype).to(tl.float32)
        odd = (odd * tl.load(weight + 1).to(tl.float32)).to(dtype).to(tl.float32)
    return (even * cos - odd * sin).to(dtype), (even * sin + odd * cos).to(dtype)


def project_twin(qkv: Tensor, position: Tensor, attention: AttentionWeights) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``[rows, heads, head_dim]``, keys and values ``[rows, kv_heads, head_dim]`` of `qkv` ``[rows,
    qkv_width]``, whose rows are at `position` ``[rows]``."""
    sizes = attention.heads
    split = qkv.view(len(qkv), -1, sizes.head_dim)
    turned, values = split.tensor_split((sizes.heads + sizes.kv_heads,), dim=1)
    if attention.qk_norm is not None:
        turned = functional.rms_norm(turned, (sizes.head_dim,), eps=attention.eps) * attention.qk_norm
    cos, sin = attention.rotation[position].unsqueeze(1).unbind(-1)
    even, odd = turned.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(qkv.dtype)
    queries, keys = turned.tensor_split((sizes.heads,), dim=1)
    return queries, keys, values
