"""`linear_ahead` that reads weights and rows through descriptors which the host has made (TMA, from sm_90 on).

In the machine code of `linear_kernel` for sm_90 every thread copies 16 bytes at a time. In each step of k all threads
wait for a fence between these copies and the matrix instructions. Behind the last loads of a pipeline of S stages come
S - 1 more, of zeros, because Triton does not leave such copies out: 60 of a thread's 156 copies where k has 8 steps and
the pipeline 6 stages. By TMA one thread starts the copy of a tile, there is no fence, and no copy behind the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from cloner.engine.kernels.launch import after_previous
from cloner.engine.kernels.step.tiles import Tile
from ops.engine_bench.candidates.linear_ahead import LinearAhead, epilogue_inputs, fetch, finish, last_of_tile


@triton.jit
def linear_tma_kernel(
    x, w, out, squares_in, squares_out, partial, arrived, ahead, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, NORM_PARTS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    OUT_PARTS: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    SHARE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """As `linear_ahead_kernel`, with descriptors: `x` of tiles ``[BM, BK]``, and `w` of ``[BN, BK]``, or gated of
    ``[2, BN, BK]``."""
    after_previous(EARLY)
    tile_n, tile_m, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, col, begin = tile_m * BM, tile_n * BN, part * (K // SPLIT)
    rows, cols = row + tl.arange(0, BM), col + tl.arange(0, BN)
    squares, residual = epilogue_inputs(out, squares_in, rows, cols, WIDTH, NORM_PARTS, RESIDUAL, BM, BN)
    fetch(ahead, ((part * tl.num_programs(1) + tile_m) * tl.num_programs(0) + tile_n) * SHARE, SHARE)
    acc = tl.zeros([BM, (2 if GATED else 1) * BN], tl.float32)
    for k in range(begin, begin + K // SPLIT, BK):
        a = x.load([row, k])
        b = w.load([0, col, k]).reshape(2 * BN, BK) if GATED else w.load([col, k])
        acc = tl.dot(a, b.T, acc)
    if SPLIT > 1:
        last, acc = last_of_tile(acc, partial, arrived, tile_n, tile_m, part, SPLIT, BM, BN)
    else:
        last = True
    if last:
        finish(
            acc, squares, residual, out, squares_out, rows, cols, tile_n, eps,
            K, WIDTH, NORM_PARTS, RESIDUAL, GATED, OUT_PARTS, BM, BN,
        )  # fmt: skip


@dataclass
class LinearTma(LinearAhead):
    """The product."""

    _kernel: ClassVar[Any] = linear_tma_kernel

    def _inputs(self, x: Tensor, weight: Tensor, tile: Tile, *, gated: bool) -> tuple[Any, Any]:
        rows = TensorDescriptor.from_tensor(x, [tile.bm, tile.bk])
        if gated:
            halves = weight.view(2, -1, weight.shape[1])
            return rows, TensorDescriptor.from_tensor(halves, [2, tile.bn, tile.bk])
        return rows, TensorDescriptor.from_tensor(weight, [tile.bn, tile.bk])
