"""Attention of the prompt rows in one layer of the slow transformer: their keys into the cache first, then attention.

Prompt rows stand in aligned groups of `GROUP_ROWS` of one owner. Since all keys of a step are stored before any row
attends, a prompt may be read in pieces of any length, and several pieces of it in one step.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.launch import after_previous, launch
from cloner.engine.kernels.step.layout import (
    GROUP_ROWS,
    OWNER,
    POSITION,
    RECORD_WIDTH,
    AttentionWeights,
    LayerCache,
    PromptRows,
)
from cloner.engine.kernels.step.pages import attend_pages, attend_pages_twin, store_pages_twin
from cloner.engine.kernels.step.rotary import LOG2E, project_twin, rotated

_POSITION = tl.constexpr(POSITION)
_OWNER = tl.constexpr(OWNER)
_RECORD = tl.constexpr(RECORD_WIDTH)


@triton.jit
def store_prompt_kernel(
    qkv, records, page_table, qk_norm, rotation, keys, values, eps,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr, TABLE: tl.constexpr,
    NORMED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a prompt row: its keys, normed and rotated, and its values into the cache."""
    after_previous(EARLY)
    row = tl.program_id(0)
    fields = records + row * _RECORD
    owner = tl.load(fields + _OWNER)
    position = tl.load(fields + _POSITION)
    if position >= 0:
        prefix = tl.load(page_table + owner * TABLE)
        own = position - prefix
        page = tl.load(page_table + owner * TABLE + 1 + (prefix + PAGE - 1) // PAGE + own // PAGE).to(tl.int64)
        head = tl.arange(0, KV)[:, None]
        half = tl.arange(0, HEAD // 2)[None, :]
        turn = rotation + position * HEAD + 2 * half
        source = qkv + row * ((HEADS + 2 * KV) * HEAD)
        spot = (HEADS + head) * HEAD + 2 * half
        even, odd = rotated(
            source + spot, spot >= 0, qk_norm + spot, tl.load(turn), tl.load(turn + 1), eps, NORMED, HEAD,
            qkv.dtype.element_ty,
        )  # fmt: skip
        target = page * (KV * PAGE * HEAD) + (head * PAGE + own % PAGE) * HEAD
        tl.store(keys + target + 2 * half, even)
        tl.store(keys + target + 2 * half + 1, odd)
        dim = tl.arange(0, HEAD)[None, :]
        tl.store(values + target + dim, tl.load(source + (HEADS + KV + head) * HEAD + dim))


@triton.jit
def attend_prompt_kernel(
    qkv, out, records, page_table, qk_norm, rotation, keys, values, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr, TABLE: tl.constexpr,
    TOGETHER: tl.constexpr, NORMED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Grid ``(prompts / TOGETHER, KV)``: one group of rows for one key head."""
    after_previous(EARLY)
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KV
    M: tl.constexpr = TOGETHER * GROUP
    dtype: tl.constexpr = qkv.dtype.element_ty
    member = tl.arange(0, M)
    row = tile * TOGETHER + member // GROUP
    position = tl.load(records + row * _RECORD + _POSITION)
    latest = tl.max(position, 0)
    if latest < 0:
        return
    owner = tl.load(records + tile * TOGETHER * _RECORD + _OWNER)
    pages = page_table + owner * TABLE + 1
    prefix = tl.load(pages - 1)
    half = tl.arange(0, HEAD // 2)[None, :]
    dim = tl.arange(0, HEAD)
    turn = rotation + tl.maximum(position, 0)[:, None] * HEAD + 2 * half
    head = (kv_head * GROUP + member % GROUP)[:, None]
    place = head * HEAD + 2 * half
    even, odd = rotated(
        qkv + row[:, None] * ((HEADS + 2 * KV) * HEAD) + place, place >= 0, qk_norm + place,
        tl.load(turn), tl.load(turn + 1), eps, NORMED, HEAD, dtype,
    )  # fmt: skip
    query = tl.interleave(even, odd)
    top = tl.full([M], -1e30, tl.float32)  # finite: an idle row may see nothing at all
    norm = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, HEAD], tl.float32)
    seen = tl.maximum(position - prefix + 1, 0)
    most = latest - prefix + 1
    last = (prefix + PAGE - 1) // PAGE + (most + PAGE - 1) // PAGE
    top, norm, acc = attend_pages(
        query, keys, values, pages, kv_head, prefix, seen, most, 0, last, top, norm, acc, scale, KV, HEAD, PAGE
    )
    norm = tl.where(norm > 0.0, norm, 1.0)
    target = out + row[:, None] * (HEADS * HEAD) + head * HEAD + dim[None, :]
    tl.store(target, (acc / norm[:, None]).to(dtype), (position >= 0)[:, None] & (dim >= 0)[None, :])


def attend_prompt(
    qkv: Tensor, out: Tensor, rows: PromptRows, attention: AttentionWeights, cache: LayerCache, prompts: int
) -> None:
    """Store keys and values of the first `prompts` (a multiple of `GROUP_ROWS`) rows of `qkv` ``[.., qkv_width]``, and
    write their attention to `out` ``[.., heads * head_dim]``. Rows whose position is below 0 are left out."""
    sizes = attention.heads
    shape = {
        "HEADS": sizes.heads,
        "KV": sizes.kv_heads,
        "HEAD": sizes.head_dim,
        "PAGE": cache.keys.shape[2],
        "TABLE": rows.page_table.shape[1],
        "NORMED": attention.qk_norm is not None,
    }
    weight = qkv if attention.qk_norm is None else attention.qk_norm
    inputs = (rows.records, rows.page_table, weight, attention.rotation, cache.keys, cache.values, attention.eps)
    launch(store_prompt_kernel, (prompts,), qkv, *inputs, **shape, num_warps=4)
    launch(
        attend_prompt_kernel,
        (prompts // GROUP_ROWS, sizes.kv_heads),
        qkv,
        out,
        *inputs,
        sizes.head_dim**-0.5 * LOG2E,
        **shape,
        TOGETHER=GROUP_ROWS,
        num_warps=4,
        num_stages=3,
    )


def attend_prompt_twin(
    qkv: Tensor, out: Tensor, rows: PromptRows, attention: AttentionWeights, cache: LayerCache, prompts: int
) -> None:
    """As `attend_prompt`, by gathering each row's pages."""
    fields = rows.records[:prompts].long()
    position = fields[:, POSITION]
    active = position >= 0
    place = torch.stack([fields[:, OWNER], position, active.long()])
    queries, keys, values = project_twin(qkv[:prompts], position.clamp(min=0), attention)
    store_pages_twin(keys, values, cache, rows.page_table, place)
    attended = attend_pages_twin(queries, cache, rows.page_table, place)
    out[:prompts] = torch.where(active[:, None], attended, out[:prompts])
