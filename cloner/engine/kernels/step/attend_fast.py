"""Attention of the fast transformer, which makes a frame's codes one codebook after another: at most ten positions.

At the token of codebook b a row sees its positions 0 to b. The first pass of a frame has two tokens a row, at positions
0 (the slow transformer's hidden state) and 1 (the first code).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.launch import after_previous, launch
from cloner.engine.kernels.step.layout import FAST_POSITIONS, AttentionWeights, LayerCache
from cloner.engine.kernels.step.rotary import LOG2E, project_twin, rotated

_POSITIONS = tl.constexpr(FAST_POSITIONS)


@triton.jit(do_not_specialize=["book"])
def attend_fast_kernel(
    qkv, out, qk_norm, rotation, keys, values, book, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, FIRST: tl.constexpr, NORMED: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """Grid ``(decode, KV)``: one row for one key head. FIRST: its tokens are rows 2r and 2r + 1 of `qkv`."""
    after_previous(EARLY)
    row, kv_head = tl.program_id(0), tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KV
    WIDTH: tl.constexpr = (HEADS + 2 * KV) * HEAD
    dtype: tl.constexpr = qkv.dtype.element_ty
    member = tl.arange(0, GROUP)[:, None]
    half = tl.arange(0, HEAD // 2)[None, :]
    dim = tl.arange(0, HEAD)
    token = row * 2 + 1 if FIRST else row
    source = qkv + token * WIDTH
    turn = rotation + book * HEAD + 2 * half
    cos, sin = tl.load(turn), tl.load(turn + 1)
    head = kv_head * GROUP + member
    spot = head * HEAD + 2 * half
    query, query_odd = rotated(source + spot, spot >= 0, qk_norm + spot, cos, sin, eps, NORMED, HEAD, dtype)
    query, query_odd = query.to(tl.float32), query_odd.to(tl.float32)
    key = (HEADS + kv_head) * HEAD + 2 * half
    k, k_odd = rotated(source + key, half >= 0, qk_norm + key, cos, sin, eps, NORMED, HEAD, dtype)
    v = tl.load(source + (HEADS + KV + kv_head) * HEAD + dim)
    base = (row * KV + kv_head) * (_POSITIONS * HEAD)
    tl.store(keys + base + book * HEAD + 2 * half, k)
    tl.store(keys + base + book * HEAD + 2 * half + 1, k_odd)
    tl.store(values + base + book * HEAD + dim, v)
    own = tl.sum(query * k.to(tl.float32) + query_odd * k_odd.to(tl.float32), 1) * scale
    if FIRST:
        # Position 0 is not rotated, and sees itself alone: its output is its value.
        k0, k0_odd = rotated(source + key - WIDTH, half >= 0, qk_norm + key, 1.0, 0.0, eps, NORMED, HEAD, dtype)
        v0 = tl.load(source - WIDTH + (HEADS + KV + kv_head) * HEAD + dim)
        tl.store(keys + base + 2 * half, k0)
        tl.store(keys + base + 2 * half + 1, k0_odd)
        tl.store(values + base + dim, v0)
        other = tl.sum(query * k0.to(tl.float32) + query_odd * k0_odd.to(tl.float32), 1) * scale
        top = tl.maximum(own, other)
        mine, its = tl.exp2(own - top), tl.exp2(other - top)
        acc = mine[:, None] * v.to(tl.float32)[None, :] + its[:, None] * v0.to(tl.float32)[None, :]
        norm = mine + its
        copied = tl.zeros([GROUP, HEAD], tl.float32) + v0.to(tl.float32)[None, :]
        tl.store(out + (token - 1) * (HEADS * HEAD) + head * HEAD + dim[None, :], copied.to(dtype))
    else:
        place = tl.arange(0, _POSITIONS)
        before = (place < book)[:, None]
        stored = keys + base + place[:, None] * HEAD + 2 * half
        old = tl.load(stored, before, 0.0).to(tl.float32)
        old_odd = tl.load(stored + 1, before, 0.0).to(tl.float32)
        scores = tl.sum(query[:, None, :] * old[None, :, :] + query_odd[:, None, :] * old_odd[None, :, :], 2) * scale
        scores = tl.where((place < book)[None, :], scores, float("-inf"))
        top = tl.maximum(own, tl.max(scores, 1))
        mine = tl.exp2(own - top)
        its = tl.exp2(scores - top[:, None])
        norm = mine + tl.sum(its, 1)
        old_v = tl.load(values + base + place[:, None] * HEAD + dim[None, :], before, 0.0).to(tl.float32)
        acc = mine[:, None] * v.to(tl.float32)[None, :] + tl.sum(its[:, :, None] * old_v[None, :, :], 1)
    tl.store(out + token * (HEADS * HEAD) + head * HEAD + dim[None, :], (acc / norm[:, None]).to(dtype))


def attend_fast(
    qkv: Tensor, out: Tensor, attention: AttentionWeights, cache: LayerCache, decode: int, book: int, *, first: bool
) -> None:
    """Attention of `decode` rows at position `book`, or with `first` at positions 0 and 1 (`book`), as rows 2r and 2r +
    1 of `qkv` ``[.., qkv_width]`` and `out` ``[.., heads * head_dim]``. `cache`: ``[rows, kv_heads, FAST_POSITIONS,
    head_dim]``."""
    sizes = attention.heads
    launch(
        attend_fast_kernel,
        (decode, sizes.kv_heads),
        qkv,
        out,
        qkv if attention.qk_norm is None else attention.qk_norm,
        attention.rotation,
        cache.keys,
        cache.values,
        book,
        attention.eps,
        sizes.head_dim**-0.5 * LOG2E,
        HEADS=sizes.heads,
        KV=sizes.kv_heads,
        HEAD=sizes.head_dim,
        FIRST=first,
        NORMED=attention.qk_norm is not None,
        num_warps=1,
    )


def attend_fast_twin(
    qkv: Tensor, out: Tensor, attention: AttentionWeights, cache: LayerCache, decode: int, book: int, *, first: bool
) -> None:
    """As `attend_fast`, over the positions that are filled."""
    sizes = attention.heads
    tokens = 2 if first else 1
    begin, rows = book + 1 - tokens, decode * tokens
    position = torch.arange(begin, book + 1, device=qkv.device).repeat(decode)
    queries, keys, values = project_twin(qkv[:rows], position, attention)
    for stored, new in ((cache.keys, keys), (cache.values, values)):
        stored[:decode, :, begin : book + 1] = new.view(decode, tokens, sizes.kv_heads, -1).transpose(1, 2)
    # [decode, kv_heads, tokens * group, head_dim]
    grouped = queries.view(decode, tokens, sizes.kv_heads, sizes.group, -1).transpose(1, 2).flatten(2, 3).float()
    seen_keys, seen_values = cache.keys[:decode, :, : book + 1].float(), cache.values[:decode, :, : book + 1].float()
    scores = grouped @ seen_keys.transpose(2, 3) * sizes.head_dim**-0.5
    if first:
        scores[:, :, : sizes.group, 1] = -1e30  # position 0 does not see position 1
    attended = (scores.softmax(-1) @ seen_values).unflatten(2, (tokens, sizes.group)).transpose(1, 2)
    out[:rows] = attended.reshape(rows, -1).to(out.dtype)
