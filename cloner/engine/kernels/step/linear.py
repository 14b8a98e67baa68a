"""Matrix products of few rows with everything around them: norm before, activation or residual behind.

With weight ``w`` ``[n, k]`` and rows ``x`` ``[rows, k]``, for each row::

    y = x @ w.T                                       [n]
    y = y * rsqrt(sum(squares) / k + eps)             with a norm (its weight is folded into w)
    y = silu(y[:n / 2]) * y[n / 2:]                   gated
    out = y, or out = out + y                         residual; also leaves sums of squares of the new out

Since an RMS norm multiplies a row by one factor, ``norm(x) @ w.T`` is ``(x @ w.T)`` times that factor, and the factor's
sum of squares is left by the kernel that wrote x. So a norm costs no pass over x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.launch import after_previous, launch
from cloner.engine.kernels.step.layout import Scratch
from cloner.engine.kernels.step.tiles import Tile


@dataclass(frozen=True)
class RowNorm:
    """RMS norm of a product's input: its sums of squares as `parts` partial sums a row, ``[rows * parts]`` fp32."""

    squares: Tensor
    parts: int
    eps: float


@triton.jit
def _finish(
    acc, acc_up, out, squares_in, squares_out, rows, cols, tile_n, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, NORM_PARTS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    OUT_PARTS: tl.constexpr,
):  # fmt: skip
    """Norm, activation, residual and store of one tile ``[BM, BN]``."""
    if NORM_PARTS > 0:
        part = tl.arange(0, NORM_PARTS)
        squares = tl.sum(tl.load(squares_in + rows[:, None] * NORM_PARTS + part[None, :]), 1)
        factor = tl.rsqrt(squares / K + eps)[:, None]
        acc *= factor
        if GATED:
            acc_up *= factor
    if GATED:
        acc = acc / (1.0 + tl.exp(-acc)) * acc_up
    target = out + rows[:, None] * WIDTH + cols[None, :]
    if RESIDUAL:
        acc += tl.load(target).to(tl.float32)
    rounded = acc.to(out.dtype.element_ty)
    tl.store(target, rounded)
    if RESIDUAL:
        value = rounded.to(tl.float32)
        tl.store(squares_out + rows * OUT_PARTS + tile_n, tl.sum(value * value, 1))


@triton.jit
def linear_kernel(
    x, w, out, squares_in, squares_out, partial, arrived, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, NORM_PARTS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    OUT_PARTS: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program a tile of `out` and part of k, grid ``(WIDTH / BN, rows / BM, SPLIT)``. Without masks: `x` and `out`
    have rows up to a multiple of BM, WIDTH is a multiple of BN, and K of BK * SPLIT. With SPLIT the last program of a
    tile to arrive adds the parts up in their order."""
    after_previous(EARLY)
    tile_n, tile_m, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows = tile_m * BM + tl.arange(0, BM)
    cols = tile_n * BN + tl.arange(0, BN)
    k = part * (K // SPLIT) + tl.arange(0, BK)
    xs = x + rows[:, None] * K + k[None, :]
    ws = w + cols[None, :] * K + k[:, None]
    acc = tl.zeros([BM, BN], tl.float32)
    acc_up = tl.zeros([BM, BN], tl.float32)
    for _ in range(0, K // SPLIT, BK):
        a = tl.load(xs)
        acc = tl.dot(a, tl.load(ws), acc)
        if GATED:
            acc_up = tl.dot(a, tl.load(ws + WIDTH * K), acc_up)
        xs += BK
        ws += BK
    if SPLIT == 1:
        _finish(
            acc, acc_up, out, squares_in, squares_out, rows, cols, tile_n, eps,
            K, WIDTH, NORM_PARTS, RESIDUAL, GATED, OUT_PARTS,
        )  # fmt: skip
    else:
        tile = tile_m * tl.num_programs(0) + tile_n
        inner = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
        parts = partial + tile * (SPLIT * BM * BN) + inner
        tl.store(parts + part * (BM * BN), acc)
        tl.debug_barrier()  # all threads have stored before one says so
        before = tl.atomic_add(arrived + tile, 1, sem="acq_rel")
        if before == SPLIT - 1:
            tl.store(arrived + tile, 0)
            total = tl.zeros([BM, BN], tl.float32)
            for other in tl.static_range(SPLIT):
                total += tl.load(parts + other * (BM * BN), cache_modifier=".cg")
            _finish(
                total, acc_up, out, squares_in, squares_out, rows, cols, tile_n, eps,
                K, WIDTH, NORM_PARTS, RESIDUAL, GATED, OUT_PARTS,
            )  # fmt: skip


def linear(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    rows: int,
    tile: Tile,
    scratch: Scratch,
    *,
    norm: RowNorm | None = None,
    gated: bool = False,
    residual_squares: Tensor | None = None,
) -> None:
    """Product of the first `rows` of `x` ``[.., k]`` with `weight` ``[n, k]`` into `out` ``[.., n]`` (gated: n / 2).

    With `residual_squares` ``[rows * n / tile.bn]`` fp32 it adds to `out` in place and leaves there each row's sums of
    squares, one for every `tile.bn` columns. `x` and `out` have at least the next multiple of `tile.bm` rows.
    """
    width = weight.shape[0] // 2 if gated else weight.shape[0]
    squares_in = norm.squares if norm else scratch.norms
    launch(
        linear_kernel,
        (width // tile.bn, -(-rows // tile.bm), tile.split),
        x,
        weight,
        out,
        squares_in,
        scratch.norms if residual_squares is None else residual_squares,
        scratch.partial,
        scratch.arrived,
        norm.eps if norm else 0.0,
        K=weight.shape[1],
        WIDTH=width,
        NORM_PARTS=norm.parts if norm else 0,
        RESIDUAL=residual_squares is not None,
        GATED=gated,
        OUT_PARTS=width // tile.bn,
        SPLIT=tile.split,
        BM=tile.bm,
        BN=tile.bn,
        BK=tile.bk,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def linear_twin(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    rows: int,
    tile: Tile,
    scratch: Scratch,  # noqa: ARG001 - the kernel's arguments
    *,
    norm: RowNorm | None = None,
    gated: bool = False,
    residual_squares: Tensor | None = None,
) -> None:
    """As `linear`, by torch's own product."""
    if x.is_cuda:
        y = torch.mm(x[:rows], weight.T, out_dtype=torch.float32)
    else:
        y = functional.linear(x[:rows], weight).float()
    if norm is not None:
        squares = norm.squares[: rows * norm.parts].view(rows, norm.parts).sum(1, keepdim=True)
        y = y * torch.rsqrt(squares / weight.shape[1] + norm.eps)
    if gated:
        gate, up = y.chunk(2, dim=1)
        y = functional.silu(gate) * up
    if residual_squares is None:
        out[:rows] = y
        return
    out[:rows] = (out[:rows].float() + y).to(out.dtype)
    parts = y.shape[1] // tile.bn
    sums = out[:rows].float().square().view(rows, parts, tile.bn).sum(2)
    residual_squares[: rows * parts] = sums.flatten()
