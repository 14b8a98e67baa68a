"""Attention of the decode rows in one layer of the slow transformer: one launch for norm, rotation, cache and
attention.

Keys and values of a voice's prefix are read once for up to `GROUP_ROWS` rows: these rows times the query heads of one
key head fill a tile of tensor cores (Hydragen, Juravsky et al., 2024, splits shared prefixes off in the same way).
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
    Scratch,
    SlotRows,
)
from cloner.engine.kernels.step.pages import attend_pages, attend_pages_twin, store_pages_twin
from cloner.engine.kernels.step.rotary import LOG2E, project_twin, rotated

_POSITION = tl.constexpr(POSITION)
_OWNER = tl.constexpr(OWNER)
_RECORD = tl.constexpr(RECORD_WIDTH)


@triton.jit(do_not_specialize=["rows"])
def attend_decode_kernel(
    qkv, out, row_record, groups, records, page_table, qk_norm, rotation, keys, values, partial, norms, arrived,
    rows, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr,
    TABLE: tl.constexpr, TOGETHER: tl.constexpr, PREFIX_PARTS: tl.constexpr, OWN_PARTS: tl.constexpr,
    NORMED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Grid ``(rows * (PREFIX_PARTS + OWN_PARTS), KV)``. The first ``rows * PREFIX_PARTS`` programs attend to a prefix,
    for one group of rows each; the others to one row's own pages, and the first of a row's also writes its new key and
    value. Each leaves its part of the softmax; the last to arrive at a row's head merges all parts in their order."""
    after_previous(EARLY)
    job, kv_head = tl.program_id(0), tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KV
    M: tl.constexpr = TOGETHER * GROUP
    PARTS: tl.constexpr = PREFIX_PARTS + OWN_PARTS
    WIDTH: tl.constexpr = (HEADS + 2 * KV) * HEAD
    dtype: tl.constexpr = qkv.dtype.element_ty
    member = tl.arange(0, M)
    half = tl.arange(0, HEAD // 2)[None, :]
    dim = tl.arange(0, HEAD)
    of_prefix = job < rows * PREFIX_PARTS
    own_job = job - rows * PREFIX_PARTS
    listed = groups + tl.where(of_prefix, job // PREFIX_PARTS, 0) * TOGETHER
    lead = tl.where(of_prefix, tl.load(listed), own_job // OWN_PARTS)
    record = tl.load(row_record + tl.maximum(lead, 0))
    if (lead < 0) | (record < 0):
        return
    row = tl.where(of_prefix, tl.load(listed + member // GROUP), lead)
    real = tl.where(of_prefix, row >= 0, member < GROUP)
    row = tl.maximum(row, 0)
    part = tl.where(of_prefix, job % PREFIX_PARTS, PREFIX_PARTS + own_job % OWN_PARTS)
    owner = tl.load(records + record * _RECORD + _OWNER)
    pages = page_table + owner * TABLE + 1
    prefix = tl.load(pages - 1)
    prefix_pages = (prefix + PAGE - 1) // PAGE

    position = tl.load(records + tl.load(row_record + row, real, 0) * _RECORD + _POSITION, real, 0)
    turn = rotation + position[:, None] * HEAD + 2 * half
    head = kv_head * GROUP + member % GROUP
    place = head[:, None] * HEAD + 2 * half
    even, odd = rotated(
        qkv + row[:, None] * WIDTH + place, real[:, None] & (half >= 0), qk_norm + place,
        tl.load(turn), tl.load(turn + 1), eps, NORMED, HEAD, dtype,
    )  # fmt: skip
    query = tl.interleave(even, odd)
    top = tl.full([M], -1e30, tl.float32)  # finite: a part may see nothing
    norm = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, HEAD], tl.float32)
    lead_position = tl.load(records + record * _RECORD + _POSITION)
    own = lead_position - prefix
    if part == PREFIX_PARTS:
        # The new token sees itself from registers: the cache only gets it now.
        new_turn = rotation + lead_position * HEAD + 2 * half
        source = qkv + lead * WIDTH
        spot = (HEADS + kv_head) * HEAD + 2 * half
        k_even, k_odd = rotated(
            source + spot, half >= 0, qk_norm + spot, tl.load(new_turn), tl.load(new_turn + 1),
            eps, NORMED, HEAD, dtype,
        )  # fmt: skip
        v = tl.load(source + (HEADS + KV + kv_head) * HEAD + dim)
        page = tl.load(pages + prefix_pages + own // PAGE).to(tl.int64)
        target = page * (KV * PAGE * HEAD) + (kv_head * PAGE + own % PAGE) * HEAD
        tl.store(keys + target + 2 * half, k_even)
        tl.store(keys + target + 2 * half + 1, k_odd)
        tl.store(values + target + dim, v)
        product = even.to(tl.float32) * k_even.to(tl.float32) + odd.to(tl.float32) * k_odd.to(tl.float32)
        top = tl.sum(product, 1) * scale
        norm += 1.0
        acc += v.to(tl.float32)[None, :]
    own_pages = (own + PAGE - 1) // PAGE
    each = tl.where(
        of_prefix, (prefix_pages + PREFIX_PARTS - 1) // PREFIX_PARTS, (own_pages + OWN_PARTS - 1) // OWN_PARTS
    )
    begin = tl.where(of_prefix, part * each, prefix_pages + (part - PREFIX_PARTS) * each)
    end = tl.minimum(begin + each, tl.where(of_prefix, prefix_pages, prefix_pages + own_pages))
    top, norm, acc = attend_pages(
        query, keys, values, pages, kv_head, prefix, tl.zeros([M], tl.int32) + own, own, begin, end,
        top, norm, acc, scale, KV, HEAD, PAGE,
    )  # fmt: skip

    cell = (row * KV + kv_head) * GROUP + member % GROUP
    parts = partial + (cell * (PARTS * HEAD))[:, None] + dim[None, :]
    sums = norms + cell * (PARTS * 2)
    tl.store(parts + part * HEAD, acc, real[:, None])
    tl.store(sums + part * 2, top, real)
    tl.store(sums + part * 2 + 1, norm, real)
    tl.debug_barrier()  # all threads have stored before one says so
    before = tl.atomic_add(arrived + cell, 1, real, sem="acq_rel")
    tl.debug_barrier()
    last = real & (before == PARTS - 1)
    if tl.max(last.to(tl.int32), 0) > 0:
        tl.store(arrived + cell, 0, last)
        all_top = tl.full([M], -1e30, tl.float32)
        all_norm = tl.zeros([M], tl.float32)
        all_acc = tl.zeros([M, HEAD], tl.float32)
        for other in tl.static_range(PARTS):
            its_top = tl.load(sums + other * 2, last, 0.0, cache_modifier=".cg")
            its_norm = tl.load(sums + other * 2 + 1, last, 1.0, cache_modifier=".cg")
            its_acc = tl.load(parts + other * HEAD, last[:, None], 0.0, cache_modifier=".cg")
            higher = tl.maximum(all_top, its_top)
            old, new = tl.exp2(all_top - higher), tl.exp2(its_top - higher)
            all_norm = all_norm * old + its_norm * new
            all_acc = all_acc * old[:, None] + its_acc * new[:, None]
            all_top = higher
        target_out = out + row[:, None] * (HEADS * HEAD) + head[:, None] * HEAD + dim[None, :]
        tl.store(target_out, (all_acc / all_norm[:, None]).to(dtype), last[:, None])


def attend_decode(
    qkv: Tensor,
    out: Tensor,
    rows: SlotRows,
    attention: AttentionWeights,
    cache: LayerCache,
    scratch: Scratch,
    decode: int,
    parts: tuple[int, int],
    stages: int,
) -> None:
    """Attention of the first `decode` rows of `qkv` ``[.., qkv_width]`` into `out` ``[.., heads * head_dim]``; stores
    the rows' keys and values. `parts`: programs that share a prefix, and programs that share a row's own pages."""
    sizes = attention.heads
    prefix_parts, own_parts = parts
    launch(
        attend_decode_kernel,
        (decode * (prefix_parts + own_parts), sizes.kv_heads),
        qkv,
        out,
        rows.row_record,
        rows.groups,
        rows.records,
        rows.page_table,
        qkv if attention.qk_norm is None else attention.qk_norm,
        attention.rotation,
        cache.keys,
        cache.values,
        scratch.partial,
        scratch.norms,
        scratch.arrived,
        decode,
        attention.eps,
        sizes.head_dim**-0.5 * LOG2E,
        HEADS=sizes.heads,
        KV=sizes.kv_heads,
        HEAD=sizes.head_dim,
        PAGE=cache.keys.shape[2],
        TABLE=rows.page_table.shape[1],
        TOGETHER=GROUP_ROWS,
        PREFIX_PARTS=prefix_parts,
        OWN_PARTS=own_parts,
        NORMED=attention.qk_norm is not None,
        num_warps=4,
        num_stages=stages,
    )


def attend_decode_twin(
    qkv: Tensor,
    out: Tensor,
    rows: SlotRows,
    attention: AttentionWeights,
    cache: LayerCache,
    scratch: Scratch,  # noqa: ARG001 - the kernel's arguments
    decode: int,
    parts: tuple[int, int],  # noqa: ARG001
    stages: int,  # noqa: ARG001
) -> None:
    """As `attend_decode`, by gathering each row's pages."""
    record = rows.row_record[:decode].long()
    active = record >= 0
    fields = rows.records[record.clamp(min=0)].long()
    place = torch.stack([fields[:, OWNER], fields[:, POSITION], active.long()])
    queries, keys, values = project_twin(qkv[:decode], fields[:, POSITION], attention)
    store_pages_twin(keys, values, cache, rows.page_table, place)
    attended = attend_pages_twin(queries, cache, rows.page_table, place)
    out[:decode] = torch.where(active[:, None], attended, out[:decode])
