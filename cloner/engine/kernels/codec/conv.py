"""Causal convolutions over rows of channels, as matrix products, with activation and residual in the epilogue.

    y[m, n]   = bias[n] + sum over taps t and channels c of rows[m - (taps - 1 - t) * dilation, c] * weight[n, t, c]
    x[m, n]   = y[m, n] + residual[m, n]
    act[m, n] = x[m, n] + sin(alpha[n] x[m, n])^2 / alpha[n], and zero in gaps

A tap's tile of the input is the same box of memory, some rows higher: nothing is gathered or masked.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.codec.layers import Convolution, Snake
from cloner.engine.kernels.codec.rows import add_bias, box, boxed, finish, finish_twin
from cloner.engine.kernels.codec.tiles import ConvTile
from cloner.engine.kernels.launch import launch


@triton.jit(do_not_specialize=["m", "dilation"])  # or each length and each dilation would be compiled again
def conv_kernel(
    a, w, bias_ptr, alpha_ptr, reciprocal_ptr, valid_ptr, residual, x, act, m, dilation,
    N: tl.constexpr, CIN: tl.constexpr, TAPS: tl.constexpr, PER_FRAME: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, STORE_X: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, HALVES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """One program: a tile ``[BM, BN]`` of the output ``[m, N]`` of a convolution of ``[m, CIN]``."""
    DTYPE: tl.constexpr = a.dtype if TMA else a.dtype.element_ty
    STEPS: tl.constexpr = CIN // BK
    PART: tl.constexpr = BN // 2 if HALVES else BN
    a = box(a, m, CIN, BM, BK, TMA)
    w = box(w, N, TAPS * CIN, BN, BK, TMA)
    act = box(act, m, N, BM, PART, TMA)
    if HAS_RESIDUAL:
        residual = box(residual, m, N, BM, PART, TMA)
    if STORE_X:
        x = box(x, m, N, BM, PART, TMA)

    # GROUP row tiles by all column tiles: what runs at the same time shares its inputs in the L2 cache.
    n_tiles: tl.constexpr = (N + BN - 1) // BN
    pid = tl.program_id(0)
    first = pid // (GROUP * n_tiles) * GROUP
    size = min(tl.cdiv(m, BM) - first, GROUP)
    within = pid % (GROUP * n_tiles)
    row = (first + within % size) * BM
    column = within // size * BN

    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(TAPS * STEPS):
        back = (TAPS - 1 - k // STEPS) * dilation
        acc = tl.dot(a.load([row - back, k % STEPS * BK]), w.load([column, k * BK]).T, acc)

    if HALVES:
        left, right = acc.reshape(BM, 2, PART).permute(0, 2, 1).split()
        left = add_bias(left, bias_ptr, column, N, PART)
        finish(left, residual, x, act, row, column, alpha_ptr, reciprocal_ptr, valid_ptr, m,
               N, BM, PART, PER_FRAME, HAS_RESIDUAL, STORE_X, DTYPE)  # fmt: skip
        right = add_bias(right, bias_ptr, column + PART, N, PART)
        finish(right, residual, x, act, row, column + PART, alpha_ptr, reciprocal_ptr, valid_ptr, m,
               N, BM, PART, PER_FRAME, HAS_RESIDUAL, STORE_X, DTYPE)  # fmt: skip
    else:
        acc = add_bias(acc, bias_ptr, column, N, BN)
        finish(acc, residual, x, act, row, column, alpha_ptr, reciprocal_ptr, valid_ptr, m,
               N, BM, BN, PER_FRAME, HAS_RESIDUAL, STORE_X, DTYPE)  # fmt: skip


def convolve(
    rows: Tensor,
    layer: Convolution,
    snake: Snake,
    valid: Tensor,
    tile: ConvTile,
    *,
    act: Tensor,
    x: Tensor | None = None,
    residual: Tensor | None = None,
) -> None:
    """Convolve `rows` ``[m, inputs]``, zero in gaps; write `act` ``[m, outputs]``, and `x` where it is given.

    `residual` is added, and may be `x` itself. `valid` ``[frames]`` is 0 for the frames of gaps; m is a multiple of
    its length.
    """
    m = len(rows)
    part = tile.columns // 2 if tile.halves else tile.columns
    grid = (triton.cdiv(m, tile.rows) * triton.cdiv(layer.outputs, tile.columns),)
    launch(
        conv_kernel,
        grid,
        boxed(rows, tile.rows, tile.depth, tma=tile.tma),
        boxed(layer.weight, tile.columns, tile.depth, tma=tile.tma),
        layer.bias,
        snake.alpha,
        snake.reciprocal,
        valid,
        boxed(residual, tile.rows, part, tma=tile.tma),
        boxed(x, tile.rows, part, tma=tile.tma),
        boxed(act, tile.rows, part, tma=tile.tma),
        m,
        layer.dilation,
        N=layer.outputs,
        CIN=layer.inputs,
        TAPS=layer.taps,
        PER_FRAME=m // len(valid),
        HAS_RESIDUAL=residual is not None,
        STORE_X=x is not None,
        BM=tile.rows,
        BN=tile.columns,
        BK=tile.depth,
        GROUP=tile.group,
        HALVES=tile.halves,
        TMA=tile.tma,
        num_stages=tile.stages,
        num_warps=tile.warps,
    )


def convolve_twin(
    rows: Tensor,
    layer: Convolution,
    snake: Snake,
    valid: Tensor,
    _tile: ConvTile,
    *,
    act: Tensor,
    x: Tensor | None = None,
    residual: Tensor | None = None,
) -> None:
    """What `convolve` does, in plain torch."""
    finish_twin(convolution_twin(rows, layer), residual, x, act, snake, valid)


def convolution_twin(rows: Tensor, layer: Convolution) -> Tensor:
    """The convolution of ``[m, inputs]`` with its bias alone, ``[m, outputs]`` in fp32."""
    weight = layer.weight.view(layer.outputs, layer.taps, layer.inputs).permute(0, 2, 1)
    padded = functional.pad(rows.T[None], ((layer.taps - 1) * layer.dilation, 0))
    return functional.conv1d(padded, weight, dilation=layer.dilation)[0].T.float() + layer.bias
