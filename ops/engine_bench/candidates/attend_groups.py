"""Attention of the decode rows by groups: one program reads a group's prefix, then the own pages of each of its rows.

Today's kernel has a program for each row's own pages beside those for prefixes: 3,072 programs for 128 rows of 8
voices, of which 1,792 have nothing to do, and each of the others waits for six dependent loads before its first key and
then reads two or three pages. Here 16 groups times 8 key heads make 128 lists of 21 pages at 400 positions, each read
in one pipelined loop, by one program or a few. A page of one row's own is hidden from the other rows of the tile by its
mask, and leaves their sums as they are, bit by bit.

A value that is not finite is stored as zero and its key as NaN (`attend_new`): `store_prompt_keys` would have to do the
same. A row's bits depend on where its group's list is cut, so for the deterministic mode there is one part.
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
from cloner.engine.kernels.step.rotary import LOG2E
from ops.engine_bench.candidates.group_attention import attend_new, attend_page, finish_group, parts_of
from ops.engine_bench.candidates.whole_rows import turned

_POSITION = tl.constexpr(POSITION)
_OWNER = tl.constexpr(OWNER)
_RECORD = tl.constexpr(RECORD_WIDTH)


@triton.jit
def attend_group(
    listed, part, kv_head,
    qkv, out, row_record, records, page_table, qk_norm, rotation, keys, values, partial, norms, arrived, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr,
    TABLE: tl.constexpr, TOGETHER: tl.constexpr, PARTS: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """One part of the list of the group at `listed`. The first part also writes its rows' new keys and values; the last
    to arrive merges all in their order."""
    GROUP: tl.constexpr = HEADS // KV
    M: tl.constexpr = TOGETHER * GROUP
    WIDTH: tl.constexpr = (HEADS + 2 * KV) * HEAD
    dtype: tl.constexpr = qkv.dtype.element_ty
    member = tl.arange(0, M)
    dim = tl.arange(0, HEAD)
    row = tl.load(listed + member // GROUP)
    real = row >= 0
    row = tl.maximum(row, 0)
    record = records + tl.load(row_record + row, real, 0) * _RECORD
    position = tl.load(record + _POSITION, real, 0)
    lists = tl.load(record + _OWNER, real, 0) * TABLE
    prefix = tl.max(tl.load(page_table + lists, real, 0), 0)  # one voice's
    head = kv_head * GROUP + member % GROUP
    turn = tl.load(rotation + position[:, None] * HEAD + dim[None, :])
    spot = head[:, None] * HEAD + dim[None, :]
    source = qkv + row[:, None] * WIDTH
    query = turned(
        tl.load(source + spot, real[:, None], 0.0), qk_norm + spot, turn, eps, NORMED, HEAD, dtype,
    )  # fmt: skip

    # The group's list: the prefix's pages, then those that each row has filled before, one row behind the other.
    prefix_pages = (prefix + PAGE - 1) // PAGE
    own = tl.where(real, position - prefix, 0)
    own_pages = (own + PAGE - 1) // PAGE
    behind = prefix_pages + tl.cumsum(tl.where(member % GROUP == 0, own_pages, 0), 0)
    first = behind - own_pages
    pages = tl.max(behind, 0)
    at = lists + 1 + prefix_pages - first  # of page `number` of the list in the page table
    lead_at = tl.max(tl.where(member == 0, lists, 0), 0) + 1

    top = tl.full([M], -1e30, tl.float32)  # finite: a part may see nothing
    norm = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, HEAD], tl.float32)
    if part == 0:
        new_page = tl.load(page_table + lists + 1 + prefix_pages + own // PAGE, real, 0)
        top, norm, acc = attend_new(
            query, source, real, new_page, own % PAGE, kv_head, turn, qk_norm, keys, values, eps, scale,
            HEADS, KV, HEAD, PAGE, NORMED,
        )  # fmt: skip
    each = (pages + PARTS - 1) // PARTS
    begin = part * each
    for number in range(begin, tl.minimum(begin + each, pages)):
        shared = number < prefix_pages
        sees = (number >= first) & (number < behind)
        listed_at = tl.where(shared, lead_at, tl.max(tl.where(sees, at, -1073741824), 0)) + number
        page = tl.load(page_table + listed_at)
        limit = tl.where(shared, prefix - number * PAGE, tl.where(sees, own - (number - first) * PAGE, 0))
        top, norm, acc = attend_page(
            query, keys, values, page, kv_head, limit, tl.max(limit, 0), top, norm, acc, scale, KV, HEAD, PAGE,
        )  # fmt: skip
    finish_group(
        top, norm, acc, row, real, part, kv_head, out, partial, norms, arrived, HEADS, KV, HEAD, PARTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def attend_groups_kernel(
    qkv, out, row_record, groups, records, page_table, qk_norm, rotation, keys, values, partial, norms, arrived,
    rows, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr,
    TABLE: tl.constexpr, TOGETHER: tl.constexpr, PARTS: tl.constexpr, NORMED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Grid ``(KV, groups * PARTS)``, for so many groups at a time until all of `rows` are done; groups that hold rows
    come first."""
    after_previous(EARLY)
    job = tl.program_id(1)
    for group in range(job // PARTS, rows, tl.num_programs(1) // PARTS):
        listed = groups + group * TOGETHER
        if tl.load(listed) >= 0:
            attend_group(
                listed, job % PARTS, tl.program_id(0),
                qkv, out, row_record, records, page_table, qk_norm, rotation, keys, values, partial, norms, arrived,
                eps, scale, HEADS, KV, HEAD, PAGE, TABLE, TOGETHER, PARTS, NORMED,
            )  # fmt: skip


def attend_groups(programs: int, stages: int, share: int = 4) -> Kernel:
    """In place of `attend_decode`, with `programs` for all lists where groups are full (`parts_of`). There are programs
    for a `share`-th as many groups as rows: if each row has a voice of its own, a program reads so many lists."""

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
        sizes, split = attention.heads, parts_of(programs, decode)
        launch(
            attend_groups_kernel,
            (sizes.kv_heads, -(-decode // share) * split),
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
            PARTS=split,
            NORMED=attention.qk_norm is not None,
            num_warps=4,
            num_stages=stages,
        )

    return attend
