"""Attention over the pages of an owner's list: what the kernels for decode rows and for prompt rows have in common.

For a query q of a row whose owner has `prefix` shared positions, at position p, over all keys k_j and values v_j of the
prefix and of the owner's own positions up to p::

    out = sum_j softmax_j(q . k_j / sqrt(head_dim)) v_j

computed page by page with a running maximum (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.step.layout import LayerCache

CHUNK_ROWS = 8
"""Rows whose pages `attend_pages_twin` gathers at once, so that it needs little memory."""


@triton.jit
def attend_pages(
    query, keys, values, pages, kv_head, prefix, seen, most, first, last, top, norm, acc, scale,
    KV: tl.constexpr, HEAD: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Continue the softmax of `query` ``[M, HEAD]`` over pages `first` to `last` of an owner's list: the maximum `top`
    and the sum `norm`, both ``[M]``, and the weighted values `acc` ``[M, HEAD]``. Row m sees the whole prefix and its
    own `seen[m]` positions; `most` is the greatest of these. What lies behind is not read: it may be NaN."""
    prefix_pages = (prefix + PAGE - 1) // PAGE
    place = tl.arange(0, PAGE)
    dim = tl.arange(0, HEAD)
    for number in range(first, last):
        page = tl.load(pages + number).to(tl.int64)
        base = page * (KV * PAGE * HEAD) + kv_head * (PAGE * HEAD)
        shared = number < prefix_pages
        begin = tl.where(shared, number, number - prefix_pages) * PAGE
        filled = tl.where(shared, prefix, most) - begin
        written = place < filled
        k = tl.load(keys + base + place[None, :] * HEAD + dim[:, None], written[None, :], 0.0)
        scores = tl.dot(query, k) * scale
        limit = tl.where(shared, prefix, seen) - begin
        scores = tl.where(place[None, :] < limit[:, None], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2(top - higher)
        chance = tl.exp2(scores - higher[:, None])
        norm = norm * shrink + tl.sum(chance, 1)
        v = tl.load(values + base + place[:, None] * HEAD + dim[None, :], written[:, None], 0.0)
        acc = tl.dot(chance.to(v.dtype), v, acc * shrink[:, None])
        top = higher
    return top, norm, acc


def store_pages_twin(keys: Tensor, values: Tensor, cache: LayerCache, page_table: Tensor, place: Tensor) -> None:
    """Write keys and values ``[rows, kv_heads, head_dim]`` where `place` ``[3, rows]`` says: owner, position, and
    whether the row is active. What is not goes to page 0."""
    owner, position, active = place
    size = cache.keys.shape[2]
    prefix = page_table[owner, 0].long()
    own = (position - prefix).clamp(min=0)
    number = 1 + (prefix + size - 1) // size + own // size
    page = page_table[owner, number].long()
    page = torch.where(active.bool(), page, 0)
    cache.keys[page, :, own % size] = keys
    cache.values[page, :, own % size] = values


def attend_pages_twin(queries: Tensor, cache: LayerCache, page_table: Tensor, place: Tensor) -> Tensor:
    """Attention of `queries` ``[rows, heads, head_dim]``, whose own keys are in the cache already, ``[rows, heads *
    head_dim]``; `place` as for `store_pages_twin`."""
    chunks = zip(queries.split(CHUNK_ROWS), place.split(CHUNK_ROWS, dim=1), strict=True)
    return torch.cat([_attend_chunk(some, cache, page_table, where) for some, where in chunks])


def _attend_chunk(queries: Tensor, cache: LayerCache, page_table: Tensor, place: Tensor) -> Tensor:
    owner, position, _active = place
    rows, heads, head_dim = queries.shape
    _pages, kv_heads, size, _ = cache.keys.shape
    listed = page_table[owner]
    prefix, pages = listed[:, :1].long(), listed[:, 1:].long()
    number = torch.arange(pages.shape[1], device=queries.device)[None]
    shared = number < (prefix + size - 1) // size
    begin = torch.where(shared, number, number - (prefix + size - 1) // size) * size
    limit = torch.where(shared, prefix, position[:, None] - prefix + 1) - begin
    seen = (torch.arange(size, device=queries.device) < limit[..., None]).flatten(1)  # [rows, pages * size]

    def gathered(stored: Tensor) -> Tensor:
        """``[rows, kv_heads, pages * size, head_dim]``, zero where nothing is seen: there may be NaN."""
        some = stored[pages].transpose(1, 2).flatten(2, 3)
        return some.masked_fill_(~seen[:, None, :, None], 0.0).float()

    grouped = queries.view(rows, kv_heads, heads // kv_heads, head_dim).float()
    scores = grouped @ gathered(cache.keys).transpose(2, 3) * head_dim**-0.5
    scores = scores.masked_fill(~seen[:, None, None], -1e30)  # finite: an idle row may see nothing
    out = scores.softmax(-1) @ gathered(cache.values)
    return out.reshape(rows, heads * head_dim).to(queries.dtype)
