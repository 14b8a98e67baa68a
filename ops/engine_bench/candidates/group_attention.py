"""What the candidates that read a group's pages in one loop have in common: the new tokens, a page, and the end."""

from __future__ import annotations

import triton
import triton.language as tl

from ops.engine_bench.candidates.whole_rows import turned


@triton.jit
def attend_new(
    query, source, real, page, place, kv_head, turn, qk_norm, keys, values, eps, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """Start the softmax of `query` ``[M, HEAD]`` with each row's own new key, from registers, and store it and its
    value at `place` ``[M]`` of `page` ``[M]``. A value that is not finite is stored as zero and its key as NaN, since 0
    times NaN is NaN in the sums of the other rows of the tile."""
    GROUP: tl.constexpr = HEADS // KV
    M: tl.constexpr = query.shape[0]
    dim = tl.arange(0, HEAD)[None, :]
    member = tl.arange(0, M)
    spot = tl.zeros([M, 1], tl.int32) + (HEADS + kv_head) * HEAD + dim
    key = turned(
        tl.load(source + spot, real[:, None], 0.0), qk_norm + spot, turn, eps, NORMED, HEAD, query.dtype,
    )  # fmt: skip
    value = tl.load(source + KV * HEAD + spot, real[:, None], 0.0)
    wide = value.to(tl.float32)
    wrong = (tl.min((tl.abs(wide) < float("inf")).to(tl.int32), 1) == 0)[:, None]
    target = (page.to(tl.int64) * (KV * PAGE * HEAD) + (kv_head * PAGE + place) * HEAD)[:, None] + dim
    writes = (real & (member % GROUP == 0))[:, None] & (dim >= 0)
    tl.store(keys + target, tl.where(wrong, float("nan"), key.to(tl.float32)).to(key.dtype), writes)
    tl.store(values + target, tl.where(wrong, 0.0, wide).to(value.dtype), writes)
    return tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scale, tl.full([M], 1.0, tl.float32), wide


@triton.jit
def attend_page(
    query, keys, values, page, kv_head, limit, filled, top, norm, acc, scale,
    KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Continue the softmax over the first `filled` positions of a page, of which row m sees `limit[m]`; a row that sees
    none keeps its sums, bit by bit."""
    place = tl.arange(0, PAGE)
    dim = tl.arange(0, HEAD)
    written = place < filled
    base = page.to(tl.int64) * (KV * PAGE * HEAD) + kv_head * (PAGE * HEAD)
    k = tl.load(keys + base + place[None, :] * HEAD + dim[:, None], written[None, :], 0.0)
    scores = tl.where(place[None, :] < limit[:, None], tl.dot(query, k) * scale, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, 1))
    shrink = tl.exp2(top - higher)
    chance = tl.exp2(scores - higher[:, None])
    norm = norm * shrink + tl.sum(chance, 1)
    v = tl.load(values + base + place[:, None] * HEAD + dim[None, :], written[:, None], 0.0)
    return higher, norm, tl.dot(chance.to(v.dtype), v, acc * shrink[:, None])


@triton.jit
def finish_group(
    top, norm, acc, row, real, part, kv_head, out, partial, norms, arrived,
    HEADS: tl.constexpr, KV: tl.constexpr, HEAD: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Store the result of a group, if it is in one part; else leave this part, and the last to arrive merges all in
    their order."""
    GROUP: tl.constexpr = HEADS // KV
    M: tl.constexpr = acc.shape[0]
    dtype: tl.constexpr = out.dtype.element_ty
    member = tl.arange(0, M)
    dim = tl.arange(0, HEAD)[None, :]
    cell = (row * KV + kv_head) * GROUP + member % GROUP
    target = out + cell[:, None] * HEAD + dim
    if PARTS == 1:
        tl.store(target, (acc / norm[:, None]).to(dtype), real[:, None])
    else:
        parts = partial + (cell * (PARTS * HEAD))[:, None] + dim
        sums = norms + cell * (PARTS * 2)
        tl.store(parts + part * HEAD, acc, real[:, None])
        tl.store(sums + part * 2, top, real)
        tl.store(sums + part * 2 + 1, norm, real)
        tl.debug_barrier()  # all threads have stored before one says so
        counter = arrived + tl.max(tl.where(member == 0, cell, 0), 0)
        before = tl.atomic_add(counter, 1, sem="acq_rel")
        tl.debug_barrier()
        if before == PARTS - 1:
            tl.store(counter, 0)
            top = tl.full([M], -1e30, tl.float32)
            norm = tl.zeros([M], tl.float32)
            acc = tl.zeros([M, HEAD], tl.float32)
            for other in tl.static_range(PARTS):
                its_top = tl.load(sums + other * 2, real, 0.0, cache_modifier=".cg")
                its_norm = tl.load(sums + other * 2 + 1, real, 1.0, cache_modifier=".cg")
                its_acc = tl.load(parts + other * HEAD, real[:, None], 0.0, cache_modifier=".cg")
                higher = tl.maximum(top, its_top)
                old, new = tl.exp2(top - higher), tl.exp2(its_top - higher)
                norm = norm * old + its_norm * new
                acc = acc * old[:, None] + its_acc * new[:, None]
                top = higher
            tl.store(target, (acc / norm[:, None]).to(dtype), real[:, None])


def parts_of(programs: int, rows: int) -> int:
    """Programs that read one list where all lists have so many together: with 8 rows a group and 8 key heads, as many
    lists as rows. 8 at most."""
    return max(1, min(8, programs // rows))
