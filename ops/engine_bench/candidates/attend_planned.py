"""As `attend_groups`, with the lists of pages written down once a step by a kernel of their own.

All 28 layers read the same pages. `attend_groups` finds each group's list in every layer, by six dependent loads before
the first key and two reductions a page; here a program loads its group's plan, then a page's number, then the page. It
costs one launch a step more (342).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.launch import after_previous, launch, power_of_two
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
from cloner.engine.kernels.step.rotary import LOG2E
from ops.engine_bench.candidates.group_attention import attend_new, attend_page, finish_group, parts_of
from ops.engine_bench.candidates.whole_rows import turned

HEADER = 64
"""Numbers of a group's plan before its pages: their count, or -1 if the group holds no row, and for each place in the
group, its row or -1, position, and the page and place of its new token. A page is one number: `NUMBER` times which it
is, `VIEWER` times 1 + the place in the group that sees it (0: all), and how many positions are filled."""

ROWS, POSITIONS, PAGES, PLACES = 8, 16, 24, 32
NUMBER, VIEWER = 2048, 128

_POSITION = tl.constexpr(POSITION)
_OWNER = tl.constexpr(OWNER)
_RECORD = tl.constexpr(RECORD_WIDTH)
_HEADER = tl.constexpr(HEADER)
_ROWS = tl.constexpr(ROWS)
_POSITIONS = tl.constexpr(POSITIONS)
_PAGES = tl.constexpr(PAGES)
_PLACES = tl.constexpr(PLACES)
_NUMBER = tl.constexpr(NUMBER)
_VIEWER = tl.constexpr(VIEWER)


@triton.jit
def plan_groups_kernel(
    row_record, groups, records, page_table, plan,
    PAGE: tl.constexpr, TABLE: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr, STRIDE: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program a group."""
    after_previous(EARLY)
    group = tl.program_id(0)
    mine = plan + group * STRIDE
    member = tl.arange(0, TOGETHER)
    row = tl.load(groups + group * TOGETHER + member)
    real = row >= 0
    record = records + tl.load(row_record + tl.maximum(row, 0), real, 0) * _RECORD
    position = tl.load(record + _POSITION, real, 0)
    lists = page_table + tl.load(record + _OWNER, real, 0) * TABLE
    prefix = tl.max(tl.load(lists, real, 0), 0)  # one voice's
    prefix_pages = (prefix + PAGE - 1) // PAGE
    own = tl.where(real, position - prefix, 0)
    own_pages = (own + PAGE - 1) // PAGE
    behind = prefix_pages + tl.cumsum(own_pages, 0)
    count = tl.where(tl.max(row, 0) >= 0, tl.max(behind, 0), -1)
    tl.store(mine, count)
    tl.store(mine + _ROWS + member, row)
    tl.store(mine + _POSITIONS + member, position)
    tl.store(mine + _PAGES + member, tl.load(lists + 1 + prefix_pages + own // PAGE, real, 0))
    tl.store(mine + _PLACES + member, own % PAGE)

    number = tl.arange(0, BLOCK)[None, :]
    pages = tl.load(lists[:, None] + 1 + number, real[:, None] & (number < TABLE - 1), 0)
    own_number = number - prefix_pages
    of_own = (own_number >= 0) & (own_number < own_pages[:, None])
    at = tl.where(of_own, (behind - own_pages)[:, None] + own_number, number)
    filled = tl.minimum(tl.where(of_own, own[:, None] - own_number * PAGE, prefix - number * PAGE), PAGE)
    viewer = tl.where(of_own, (member + 1)[:, None] * _VIEWER, 0)
    listed = real[:, None] & (of_own | ((member == 0)[:, None] & (number < prefix_pages)))
    tl.store(mine + _HEADER + at, pages * _NUMBER + viewer + filled, listed)


@triton.jit
def attend_plan(
    mine, count, part, kv_head, qkv, out, qk_norm, rotation, keys, values, partial, norms, arrived, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr, TOGETHER: tl.constexpr,
    PARTS: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """One part of the plan `mine`, of `count` pages."""
    GROUP: tl.constexpr = HEADS // KV
    M: tl.constexpr = TOGETHER * GROUP
    member = tl.arange(0, M)
    dim = tl.arange(0, HEAD)[None, :]
    inner = member // GROUP
    row = tl.load(mine + _ROWS + inner)
    position = tl.load(mine + _POSITIONS + inner)
    real = row >= 0
    row = tl.maximum(row, 0)
    turn = tl.load(rotation + position[:, None] * HEAD + dim)
    spot = (kv_head * GROUP + member % GROUP)[:, None] * HEAD + dim
    source = qkv + row[:, None] * ((HEADS + 2 * KV) * HEAD)
    query = turned(
        tl.load(source + spot, real[:, None], 0.0), qk_norm + spot, turn, eps, NORMED, HEAD, qkv.dtype.element_ty,
    )  # fmt: skip
    top = tl.full([M], -1e30, tl.float32)  # finite: a part may see nothing
    norm = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, HEAD], tl.float32)
    if part == 0:
        top, norm, acc = attend_new(
            query, source, real, tl.load(mine + _PAGES + inner), tl.load(mine + _PLACES + inner), kv_head, turn,
            qk_norm, keys, values, eps, scale, HEADS, KV, HEAD, PAGE, NORMED,
        )  # fmt: skip
    each = (count + PARTS - 1) // PARTS
    begin = part * each
    for number in range(begin, tl.minimum(begin + each, count)):
        entry = tl.load(mine + _HEADER + number)
        page, viewer, filled = entry // _NUMBER, entry % _NUMBER // _VIEWER, entry % _VIEWER
        limit = tl.where((viewer == 0) | (viewer == inner + 1), filled, 0)
        top, norm, acc = attend_page(
            query, keys, values, page, kv_head, limit, filled, top, norm, acc, scale, KV, HEAD, PAGE,
        )  # fmt: skip
    finish_group(
        top, norm, acc, row, real, part, kv_head, out, partial, norms, arrived, HEADS, KV, HEAD, PARTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def attend_planned_kernel(
    qkv, out, plan, qk_norm, rotation, keys, values, partial, norms, arrived, rows, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr, TOGETHER: tl.constexpr,
    STRIDE: tl.constexpr, PARTS: tl.constexpr, NORMED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Grid ``(KV, groups * PARTS)``, for so many groups at a time until all of `rows` are done."""
    after_previous(EARLY)
    job = tl.program_id(1)
    for group in range(job // PARTS, rows, tl.num_programs(1) // PARTS):
        mine = plan + group * STRIDE
        count = tl.load(mine)
        if count >= 0:
            attend_plan(
                mine, count, job % PARTS, tl.program_id(0), qkv, out, qk_norm, rotation, keys, values, partial, norms,
                arrived, eps, scale, HEADS, KV, HEAD, PAGE, TOGETHER, PARTS, NORMED,
            )  # fmt: skip


def attend_planned(programs: int, stages: int, share: int = 4) -> Kernel:
    """In place of `attend_decode`, with arguments as for `attend_groups`. The plan is made in the first layer, which is
    the one whose cache lies first in its memory, and kept for the others."""
    plans: dict[tuple[torch.device, int], Tensor] = {}

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
        split = parts_of(programs, decode)
        page, table = cache.keys.shape[2], rows.page_table.shape[1]
        stride = HEADER + GROUP_ROWS * table
        key = (qkv.device, len(rows.groups) * stride)
        if key not in plans:
            plans[key] = rows.groups.new_empty(key[1])
        if cache.keys.storage_offset() == 0:
            launch(
                plan_groups_kernel,
                (decode,),
                rows.row_record,
                rows.groups,
                rows.records,
                rows.page_table,
                plans[key],
                PAGE=page,
                TABLE=table,
                BLOCK=power_of_two(table),
                TOGETHER=GROUP_ROWS,
                STRIDE=stride,
                num_warps=4,
            )
        launch(
            attend_planned_kernel,
            (sizes.kv_heads, -(-decode // share) * split),
            qkv,
            out,
            plans[key],
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
            PAGE=page,
            TOGETHER=GROUP_ROWS,
            STRIDE=stride,
            PARTS=split,
            NORMED=attention.qk_norm is not None,
            num_warps=4,
            num_stages=stages,
        )

    return attend
