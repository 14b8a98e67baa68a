# ruff: noqa: PLR0912 - what a constant switches off is a branch, too
"""Residual units in one kernel, for few channels: what is between their two convolutions never leaves the registers.

    h   = snake(between, wide(rows))         seven taps, dilated
    x   = residual + narrow(h)               one tap
    act = snake(following, x), and zero in gaps

The unit before the last convolution, which has one output channel, multiplies its `act` by that convolution's weights
instead of storing it: ``part[m, t] = sum over c of act[m, c] * weight[t, c]``, a column a tap. Then `sum_taps` makes

    samples[m] = tanh(bias + sum over t of part[m - (taps - 1 - t), t])
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.codec.conv import convolution_twin
from cloner.engine.kernels.codec.layers import LAST_TAPS, ResidualUnit, Snake
from cloner.engine.kernels.codec.rows import (
    activate,
    add_bias,
    box,
    boxed,
    cleared,
    cleared_twin,
    finish,
    finish_twin,
    snake_twin,
)
from cloner.engine.kernels.codec.tiles import UnitTile
from cloner.engine.kernels.launch import launch

SUM_ROWS = 1024
"""Samples of a program of `sum_taps`, each of which says whether all of its own are finite."""


@triton.jit(do_not_specialize=["m", "dilation"])
def unit_kernel(
    a, w1, w2, bias_ptr, alpha_ptr, reciprocal_ptr, v11, v12, v21, v22, bias2_ptr, alpha2_ptr, reciprocal2_ptr,
    valid_ptr, residual1, residual2, x1, x2, act1, act2, last1, last2, part_ptr, m, dilation,
    C: tl.constexpr, TAPS: tl.constexpr, PER_FRAME: tl.constexpr, STORE_X: tl.constexpr, LAST: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """One program: BM rows of all C channels, which are two column blocks, N1 + N2 >= C, N2 may be 0. Matrices named
    1 and 2 are tiled for the one and the other; `v12` is the narrow weight with outputs in 1 and inputs in 2."""
    DTYPE: tl.constexpr = a.dtype if TMA else a.dtype.element_ty
    STEPS: tl.constexpr = C // BK
    a = box(a, m, C, BM, BK, TMA)
    w1 = box(w1, C, TAPS * C, N1, BK, TMA)
    v11 = box(v11, C, C, N1, N1, TMA)
    residual1 = box(residual1, m, C, BM, N1, TMA)
    if STORE_X:
        x1 = box(x1, m, C, BM, N1, TMA)
    if LAST:
        last1 = box(last1, 16, C, 16, N1, TMA)
    else:
        act1 = box(act1, m, C, BM, N1, TMA)
    if N2 > 0:
        w2 = box(w2, C, TAPS * C, N2, BK, TMA)
        v12, v21, v22 = box(v12, C, C, N1, N2, TMA), box(v21, C, C, N2, N1, TMA), box(v22, C, C, N2, N2, TMA)
        residual2 = box(residual2, m, C, BM, N2, TMA)
        if STORE_X:
            x2 = box(x2, m, C, BM, N2, TMA)
        if LAST:
            last2 = box(last2, 16, C, 16, N2, TMA)
        else:
            act2 = box(act2, m, C, BM, N2, TMA)

    row = tl.program_id(0) * BM
    acc1 = tl.zeros((BM, N1), dtype=tl.float32)
    if N2 > 0:
        acc2 = tl.zeros((BM, N2), dtype=tl.float32)
    for k in range(TAPS * STEPS):
        back = (TAPS - 1 - k // STEPS) * dilation
        tile = a.load([row - back, k % STEPS * BK])
        acc1 = tl.dot(tile, w1.load([0, k * BK]).T, acc1)
        if N2 > 0:
            acc2 = tl.dot(tile, w2.load([N1, k * BK]).T, acc2)

    h1 = activate(add_bias(acc1, bias_ptr, 0, C, N1), alpha_ptr, reciprocal_ptr, 0, C, N1).to(DTYPE)
    y = tl.dot(h1, v11.load([0, 0]).T)
    if N2 > 0:
        h2 = activate(add_bias(acc2, bias_ptr, N1, C, N2), alpha_ptr, reciprocal_ptr, N1, C, N2).to(DTYPE)
        y = tl.dot(h2, v12.load([0, N1]).T, y)
    y = add_bias(y, bias2_ptr, 0, C, N1)
    if LAST:
        y += residual1.load([row, 0]).to(tl.float32)
        act = cleared(activate(y, alpha2_ptr, reciprocal2_ptr, 0, C, N1), valid_ptr, row, m, BM, PER_FRAME).to(DTYPE)
        part = tl.dot(act, last1.load([0, 0]).T)  # [BM, 16]: products need 16 columns, of which 7 are taps
    else:
        finish(y, residual1, x1, act1, row, 0, alpha2_ptr, reciprocal2_ptr, valid_ptr, m,
               C, BM, N1, PER_FRAME, True, STORE_X, DTYPE)  # fmt: skip
    if N2 > 0:
        y = tl.dot(h1, v21.load([N1, 0]).T)
        y = tl.dot(h2, v22.load([N1, N1]).T, y)
        y = add_bias(y, bias2_ptr, N1, C, N2)
        if LAST:
            y += residual2.load([row, N1]).to(tl.float32)
            y = activate(y, alpha2_ptr, reciprocal2_ptr, N1, C, N2)
            act = cleared(y, valid_ptr, row, m, BM, PER_FRAME).to(DTYPE)
            part = tl.dot(act, last2.load([0, N1]).T, part)
        else:
            finish(y, residual2, x2, act2, row, N1, alpha2_ptr, reciprocal2_ptr, valid_ptr, m,
                   C, BM, N2, PER_FRAME, True, STORE_X, DTYPE)  # fmt: skip
    if LAST:
        rows = row + tl.arange(0, BM)
        taps = tl.arange(0, 16)[None, :]
        tl.store(part_ptr + rows.to(tl.int64)[:, None] * 8 + taps, part, mask=(rows < m)[:, None] & (taps < 8))


def apply_unit(
    rows: Tensor,
    x: Tensor,
    unit: ResidualUnit,
    following: Snake,
    valid: Tensor,
    tile: UnitTile,
    *,
    keep: bool,
    act: Tensor | None = None,
    last_weight: Tensor | None = None,
    part: Tensor | None = None,
) -> None:
    """Apply a unit to `rows` ``[m, channels]``, the activation of `x`, which is zero in gaps.

    Writes `act` ``[m, channels]``, which must not be `rows`: programs read rows of others. With `last_weight`
    ``[16, channels]``, writes `part` ``[m, 8]`` in fp32 instead. With `keep`, `x` becomes the new residual stream.
    """
    m, channels = rows.shape
    wide, narrow = unit.wide.weight, unit.narrow.weight
    left, right = tile.left, tile.right or None

    def tiles(matrix: Tensor | None, height: int | None, width: int | None) -> object:
        wanted = matrix is not None and height and width
        return boxed(matrix, height, width, tma=tile.tma) if wanted and height and width else None

    kept = x if keep else None
    launch(
        unit_kernel,
        (triton.cdiv(m, tile.rows),),
        tiles(rows, tile.rows, tile.depth),
        tiles(wide, left, tile.depth),
        tiles(wide, right, tile.depth),
        unit.wide.bias,
        unit.between.alpha,
        unit.between.reciprocal,
        tiles(narrow, left, left),
        tiles(narrow, left, right),
        tiles(narrow, right, left),
        tiles(narrow, right, right),
        unit.narrow.bias,
        following.alpha,
        following.reciprocal,
        valid,
        tiles(x, tile.rows, left),
        tiles(x, tile.rows, right),
        tiles(kept, tile.rows, left),
        tiles(kept, tile.rows, right),
        tiles(act, tile.rows, left),
        tiles(act, tile.rows, right),
        tiles(last_weight, 2 * LAST_TAPS, left),
        tiles(last_weight, 2 * LAST_TAPS, right),
        part,
        m,
        unit.wide.dilation,
        C=channels,
        TAPS=unit.wide.taps,
        PER_FRAME=m // len(valid),
        STORE_X=keep,
        LAST=last_weight is not None,
        BM=tile.rows,
        BK=tile.depth,
        N1=tile.left,
        N2=tile.right,
        TMA=tile.tma,
        num_stages=tile.stages,
        num_warps=tile.warps,
    )


def apply_unit_twin(
    rows: Tensor,
    x: Tensor,
    unit: ResidualUnit,
    following: Snake,
    valid: Tensor,
    _tile: UnitTile,
    *,
    keep: bool,
    act: Tensor | None = None,
    last_weight: Tensor | None = None,
    part: Tensor | None = None,
) -> None:
    """What `apply_unit` does, in plain torch."""
    hidden = snake_twin(convolution_twin(rows, unit.wide), unit.between).to(rows.dtype)
    y = functional.linear(hidden, unit.narrow.weight).float() + unit.narrow.bias
    if act is not None:
        finish_twin(y, x, x if keep else None, act, following, valid)
    if last_weight is not None and part is not None:
        last = cleared_twin(snake_twin(y + x, following), valid).to(rows.dtype)
        part.copy_(functional.linear(last, last_weight[:LAST_TAPS]))


@triton.jit(do_not_specialize=["m"])
def sum_kernel(part_ptr, bias_ptr, out_ptr, finite_ptr, m, TAPS: tl.constexpr, BM: tl.constexpr):
    """One program: BM samples of m."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    y = tl.zeros((BM,), dtype=tl.float32) + tl.load(bias_ptr)
    for tap in tl.static_range(TAPS):
        source = rows - (TAPS - 1 - tap)
        y += tl.load(part_ptr + source * 8 + tap, mask=(source >= 0) & (source < m), other=0.0)
    is_number = tl.abs(y) < float("inf")  # which NaN is not either
    tl.store(finite_ptr + tl.program_id(0), tl.min(is_number.to(tl.int32), axis=0).to(tl.int8))
    e = tl.exp(-2.0 * tl.abs(y))  # tanh, without overflow
    tl.store(out_ptr + rows, tl.where(y < 0, -1.0, 1.0) * (1.0 - e) / (1.0 + e), mask=rows < m)


def sum_taps(part: Tensor, bias: Tensor, taps: int, *, samples: Tensor, finite: Tensor) -> None:
    """Write `samples` ``[m]`` of the products `part` ``[m, 8]``, in fp32, and whether they are `finite`
    ``[ceil(m / SUM_ROWS)]``: 0 where one of `SUM_ROWS` is not, before tanh makes a number of infinity."""
    grid = (triton.cdiv(len(part), SUM_ROWS),)
    launch(sum_kernel, grid, part, bias, samples, finite, len(part), TAPS=taps, BM=SUM_ROWS, num_warps=4)


def sum_taps_twin(part: Tensor, bias: Tensor, taps: int, *, samples: Tensor, finite: Tensor) -> None:
    """What `sum_taps` does, in plain torch."""
    padded = functional.pad(part, (0, 0, taps - 1, 0))
    y = bias + sum(padded[tap : tap + len(part), tap] for tap in range(taps))
    blocks = functional.pad(y, (0, -len(y) % SUM_ROWS)).view(-1, SUM_ROWS)
    finite.copy_(blocks.isfinite().all(dim=1))
    samples.copy_(torch.tanh(y))
