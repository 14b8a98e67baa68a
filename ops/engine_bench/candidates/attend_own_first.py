"""Today's attention of the decode rows with the programs in another order, and fewer of them.

First come those of rows' own pages, which wait for no group, then those of prefixes: for a part of the rows alone, each
for one group after another, since 128 rows of 8 voices make 16 groups of 128 that there could be. What a program
computes is the same, so that the parts of a row do not depend on its neighbours.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.launch import after_previous, launch
from cloner.engine.kernels.step.kernel_set import Kernel
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
from cloner.engine.kernels.step.pages import attend_pages
from cloner.engine.kernels.step.rotary import LOG2E
from ops.engine_bench.candidates.whole_rows import turned

_POSITION = tl.constexpr(POSITION)
_OWNER = tl.constexpr(OWNER)
_RECORD = tl.constexpr(RECORD_WIDTH)


@triton.jit
def attend_part(
    row, real, lead, record, part, kv_head,
    qkv, out, row_record, records, page_table, qk_norm, rotation, keys, values, partial, norms, arrived, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr, TABLE: tl.constexpr,
    M: tl.constexpr, PREFIX_PARTS: tl.constexpr, OWN_PARTS: tl.constexpr, NORMED: tl.constexpr,
    OF_PREFIX: tl.constexpr,
):  # fmt: skip
    """One part of a prefix, for the rows `row` ``[M]`` of a group, or of the own pages of one row, whose first part
    also writes its new key and value. The last to arrive at a row's head merges all parts in their order."""
    GROUP: tl.constexpr = HEADS // KV
    PARTS: tl.constexpr = PREFIX_PARTS + OWN_PARTS
    WIDTH: tl.constexpr = (HEADS + 2 * KV) * HEAD
    dtype: tl.constexpr = qkv.dtype.element_ty
    member = tl.arange(0, M)
    dim = tl.arange(0, HEAD)[None, :]
    pages = page_table + tl.load(records + record * _RECORD + _OWNER) * TABLE + 1
    prefix = tl.load(pages - 1)
    prefix_pages = (prefix + PAGE - 1) // PAGE
    if OF_PREFIX:
        position = tl.load(records + tl.load(row_record + row, real, 0) * _RECORD + _POSITION, real, 0)
    else:
        position = tl.zeros([M], tl.int32) + tl.load(records + record * _RECORD + _POSITION)
    turn = tl.load(rotation + position[:, None] * HEAD + dim)
    head = kv_head * GROUP + member % GROUP
    spot = head[:, None] * HEAD + dim
    query = turned(
        tl.load(qkv + row[:, None] * WIDTH + spot, real[:, None], 0.0), qk_norm + spot, turn, eps, NORMED, HEAD, dtype,
    )  # fmt: skip
    own = tl.max(position, 0) - prefix
    top = tl.full([M], -1e30, tl.float32)  # finite: a part may see nothing
    norm = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, HEAD], tl.float32)
    if OF_PREFIX:
        each = (prefix_pages + PREFIX_PARTS - 1) // PREFIX_PARTS
        begin = part * each
        end = tl.minimum(begin + each, prefix_pages)
    else:
        own_pages = (own + PAGE - 1) // PAGE
        each = (own_pages + OWN_PARTS - 1) // OWN_PARTS
        begin = prefix_pages + (part - PREFIX_PARTS) * each
        end = tl.minimum(begin + each, prefix_pages + own_pages)
        if part == PREFIX_PARTS:
            # The new token sees itself from registers: the cache only gets it now.
            key_spot = tl.zeros([M, 1], tl.int32) + (HEADS + kv_head) * HEAD + dim
            source = qkv + lead * WIDTH + key_spot
            key = turned(tl.load(source), qk_norm + key_spot, turn, eps, NORMED, HEAD, dtype)
            value = tl.load(source + KV * HEAD)
            page = tl.load(pages + prefix_pages + own // PAGE).to(tl.int64)
            target = page * (KV * PAGE * HEAD) + (kv_head * PAGE + own % PAGE) * HEAD + tl.zeros([M, 1], tl.int32) + dim
            first = (member[:, None] == 0) & (dim >= 0)
            tl.store(keys + target, key, first)
            tl.store(values + target, value, first)
            top = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scale
            norm += 1.0
            acc += value.to(tl.float32)
    top, norm, acc = attend_pages(
        query, keys, values, pages, kv_head, prefix, tl.zeros([M], tl.int32) + own, own, begin, end,
        top, norm, acc, scale, KV, HEAD, PAGE,
    )  # fmt: skip

    cell = (row * KV + kv_head) * GROUP + member % GROUP
    parts = partial + (cell * (PARTS * HEAD))[:, None] + dim
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
        top = tl.full([M], -1e30, tl.float32)
        norm = tl.zeros([M], tl.float32)
        acc = tl.zeros([M, HEAD], tl.float32)
        for other in tl.static_range(PARTS):
            its_top = tl.load(sums + other * 2, last, 0.0, cache_modifier=".cg")
            its_norm = tl.load(sums + other * 2 + 1, last, 1.0, cache_modifier=".cg")
            its_acc = tl.load(parts + other * HEAD, last[:, None], 0.0, cache_modifier=".cg")
            higher = tl.maximum(top, its_top)
            old, new = tl.exp2(top - higher), tl.exp2(its_top - higher)
            norm = norm * old + its_norm * new
            acc = acc * old[:, None] + its_acc * new[:, None]
            top = higher
        tl.store(out + row[:, None] * (HEADS * HEAD) + spot, (acc / norm[:, None]).to(dtype), last[:, None])


@triton.jit(do_not_specialize=["rows"])
def attend_own_first_kernel(
    qkv, out, row_record, groups, records, page_table, qk_norm, rotation, keys, values, partial, norms, arrived,
    rows, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr,
    TABLE: tl.constexpr, TOGETHER: tl.constexpr, PREFIX_PARTS: tl.constexpr, OWN_PARTS: tl.constexpr,
    NORMED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Grid ``(KV, rows * OWN_PARTS + groups * PREFIX_PARTS)``, for so many groups at a time."""
    after_previous(EARLY)
    kv_head, job = tl.program_id(0), tl.program_id(1)
    M: tl.constexpr = TOGETHER * (HEADS // KV)
    member = tl.arange(0, M)
    of_own = rows * OWN_PARTS
    if job < of_own:
        lead = job // OWN_PARTS
        record = tl.load(row_record + lead)
        if record >= 0:
            attend_part(
                tl.zeros([M], tl.int32) + lead, member < HEADS // KV, lead, record, PREFIX_PARTS + job % OWN_PARTS,
                kv_head, qkv, out, row_record, records, page_table, qk_norm, rotation, keys, values, partial, norms,
                arrived, eps, scale, HEADS, KV, HEAD, PAGE, TABLE, M, PREFIX_PARTS, OWN_PARTS, NORMED, False,
            )  # fmt: skip
    else:
        job -= of_own
        for group in range(job // PREFIX_PARTS, rows, (tl.num_programs(1) - of_own) // PREFIX_PARTS):
            listed = groups + group * TOGETHER
            lead = tl.load(listed)
            if lead >= 0:
                row = tl.load(listed + member // (HEADS // KV))
                attend_part(
                    tl.maximum(row, 0), row >= 0, lead, tl.load(row_record + lead), job % PREFIX_PARTS,
                    kv_head, qkv, out, row_record, records, page_table, qk_norm, rotation, keys, values, partial, norms,
                    arrived, eps, scale, HEADS, KV, HEAD, PAGE, TABLE, M, PREFIX_PARTS, OWN_PARTS, NORMED, True,
                )  # fmt: skip


def attend_own_first(parts: tuple[int, int], stages: int, share: int = 4) -> Kernel:
    """In place of `attend_decode`, with `parts` as there, and programs for a `share`-th as many groups as rows."""

    def attend(
        qkv: Tensor,
        out: Tensor,
        rows: SlotRows,
        attention: AttentionWeights,
        cache: LayerCache,
        scratch: Scratch,
        decode: int,
        _parts: tuple[int, int],
        _stages: int,
    ) -> None:
        sizes = attention.heads
        prefix_parts, own_parts = parts
        launch(
            attend_own_first_kernel,
            (sizes.kv_heads, decode * own_parts + -(-decode // share) * prefix_parts),
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

    return attend
