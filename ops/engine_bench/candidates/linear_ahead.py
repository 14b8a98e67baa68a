"""`linear` with less to wait for, and what it shares with `linear_tma`.

Seen in the machine code that Triton 3.7.1 makes of `linear_kernel` for sm_90, and what is done about it here:

- The sums of squares and the residual are loaded behind the last product, so each of the step's 266 products ends with
  the latency of one or two loads from the L2 cache. Here they are loaded before the loop and used behind it.
- Of gate and up, the tile of rows is read from shared memory twice, once for each half of the weight. Here both halves
  are one tile of 2 * BN columns: half as many matrix instructions, and a third less to read from shared memory.
- Weights come from memory while nothing else can be done. Here each program fetches a share of the next product's
  weight into the L2 cache, by one instruction of one thread, which waits for nothing. Which weight follows is the same
  in each step; `following` finds it. It is fetched behind `after_previous`, so what that function says still holds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.codec.rows import INTERPRETED
from cloner.engine.kernels.launch import after_previous, launch, recorded_launches
from cloner.engine.kernels.step.layout import Scratch
from cloner.engine.kernels.step.linear import RowNorm
from cloner.engine.kernels.step.tiles import Tile
from cloner.engine.token_rows.token_step import TokenStep

_RUN = TokenStep.run


@triton.jit
def fetch(source, offset, SIZE: tl.constexpr):
    """Let SIZE bytes at `offset` of `source` come into the L2 cache; SIZE is a multiple of 16, or 0 for nothing."""
    if SIZE > 0 and not INTERPRETED:
        tl.inline_asm_elementwise(
            "{ .reg .pred first; .reg .b32 thread; mov.u32 thread, %tid.x; setp.eq.u32 first, thread, 0;"
            " @first cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }",
            "=r,l,r", [source.to(tl.int64) + offset, SIZE], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def epilogue_inputs(
    out, squares_in, rows, cols,
    WIDTH: tl.constexpr, NORM_PARTS: tl.constexpr, RESIDUAL: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Partial sums of squares ``[BM, NORM_PARTS]`` and residual ``[BM, BN]``, or zeros for what is not needed."""
    if NORM_PARTS > 0:
        part = tl.arange(0, NORM_PARTS)
        squares = tl.load(squares_in + rows[:, None] * NORM_PARTS + part[None, :])
    else:
        squares = tl.zeros([BM, 1], tl.float32)
    if RESIDUAL:
        residual = tl.load(out + rows[:, None] * WIDTH + cols[None, :])
    else:
        residual = tl.zeros([BM, BN], out.dtype.element_ty)
    return squares, residual


@triton.jit
def finish(
    acc, squares, residual, out, squares_out, rows, cols, tile_n, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, NORM_PARTS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    OUT_PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Norm, activation, residual and store of one tile ``[BM, BN]``, of which `acc` has gate and up side by side."""
    if NORM_PARTS > 0:
        acc *= tl.rsqrt(tl.sum(squares, 1) / K + eps)[:, None]
    if GATED:
        gate, up = acc.reshape(BM, 2, BN).permute(0, 2, 1).split()
        y = gate / (1.0 + tl.exp(-gate)) * up
    else:
        y = acc
    if RESIDUAL:
        y += residual.to(tl.float32)
    rounded = y.to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * WIDTH + cols[None, :], rounded)
    if RESIDUAL:
        value = rounded.to(tl.float32)
        tl.store(squares_out + rows * OUT_PARTS + tile_n, tl.sum(value * value, 1))


@triton.jit
def last_of_tile(
    acc, partial, arrived, tile_n, tile_m, part,
    SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Whether this program is the last of its tile to arrive, and then the sum of all parts in their order."""
    tile = tile_m * tl.num_programs(0) + tile_n
    inner = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    parts = partial + tile * (SPLIT * BM * BN) + inner
    tl.store(parts + part * (BM * BN), acc)
    tl.debug_barrier()  # all threads have stored before one says so
    last = tl.atomic_add(arrived + tile, 1, sem="acq_rel") == SPLIT - 1
    total = tl.zeros([BM, BN], tl.float32)
    if last:
        tl.store(arrived + tile, 0)
        for other in tl.static_range(SPLIT):
            total += tl.load(parts + other * (BM * BN), cache_modifier=".cg")
    return last, total


@triton.jit
def linear_ahead_kernel(
    x, w, out, squares_in, squares_out, partial, arrived, ahead, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, NORM_PARTS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    OUT_PARTS: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    SHARE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """As `linear_kernel`; each program fetches SHARE bytes of `ahead`."""
    after_previous(EARLY)
    tile_n, tile_m, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows = tile_m * BM + tl.arange(0, BM)
    cols = tile_n * BN + tl.arange(0, BN)
    squares, residual = epilogue_inputs(out, squares_in, rows, cols, WIDTH, NORM_PARTS, RESIDUAL, BM, BN)
    fetch(ahead, ((part * tl.num_programs(1) + tile_m) * tl.num_programs(0) + tile_n) * SHARE, SHARE)
    HALVES: tl.constexpr = 2 if GATED else 1
    column = tl.arange(0, HALVES * BN)
    weights = tile_n * BN + column % BN + column // BN * WIDTH
    k = part * (K // SPLIT) + tl.arange(0, BK)
    xs = x + rows[:, None] * K + k[None, :]
    ws = w + weights[None, :] * K + k[:, None]
    acc = tl.zeros([BM, HALVES * BN], tl.float32)
    for _ in range(0, K // SPLIT, BK):
        acc = tl.dot(tl.load(xs), tl.load(ws), acc)
        xs += BK
        ws += BK
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
class LinearAhead:
    """The product. `following` has the weight that the step's next product reads, by the id of a weight; of a weight
    that is not in it, nothing is fetched."""

    following: dict[int, Tensor] = field(default_factory=dict)

    def run(self, step: TokenStep, decode: int, prompts: int) -> None:
        """In place of `TokenStep.run`: find the order of the step's weights first."""
        self.following = following(step)
        _RUN(step, decode, prompts)

    def __call__(
        self,
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
        """As `linear`."""
        width = weight.shape[0] // 2 if gated else weight.shape[0]
        grid = (width // tile.bn, -(-rows // tile.bm), tile.split)
        ahead = self.following.get(id(weight))
        launch(
            self._kernel,
            grid,
            *self._inputs(x, weight, tile, gated=gated),
            out,
            norm.squares if norm else scratch.norms,
            scratch.norms if residual_squares is None else residual_squares,
            scratch.partial,
            scratch.arrived,
            weight if ahead is None else ahead,
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
            SHARE=0 if ahead is None else share(ahead, grid),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )

    _kernel: ClassVar[Any] = linear_ahead_kernel

    def _inputs(self, x: Tensor, weight: Tensor, tile: Tile, *, gated: bool) -> tuple[Any, Any]:  # noqa: ARG002
        """The kernel's first two arguments."""
        return x, weight


def share(weight: Tensor, grid: tuple[int, int, int]) -> int:
    """Bytes of a weight that each program fetches, a multiple of 16."""
    return weight.nbytes // (grid[0] * grid[1] * grid[2]) // 16 * 16


def following(step: TokenStep) -> dict[int, Tensor]:
    """The weight that follows each of a step's weights, by the id of the tensor. Nothing is launched on a GPU."""
    weights: list[Tensor] = []

    def note(_x: Tensor, weight: Tensor, *_rest: Any, **_options: Any) -> None:
        weights.append(weight)

    kernels = step.kernels
    step.kernels = replace(kernels, linear=note)
    try:
        with recorded_launches():
            _RUN(step, 1, 0)
    finally:
        step.kernels = kernels
    found: dict[int, Tensor] = {}
    for weight, after in itertools.pairwise(weights):
        found.setdefault(id(weight), after)  # of the fast head, the next codebook's first weight
    return found
