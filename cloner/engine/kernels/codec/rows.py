"""Rows of channels, and what the codec's kernels do with them all: loading tiles, activations, epilogues.

Segments of any lengths lie one behind the other in one matrix ``[rows, channels]``, each followed by a gap of
`GAP_FRAMES` frames, in which *activations* are zero. A causal convolution that reads across a segment's start then
reads the zeros that it is padded with, so no kernel knows where segments begin, and nothing is padded to the longest
one. Before the first row, tiles are zero too. After each transposed convolution a frame has more rows.

Between two layers there are up to two matrices: `x`, the residual stream, which may hold anything in a gap, and `act`,
the Snake activation of it, which the next convolution reads. The activation is applied once, by the kernel that makes
the numbers: a convolution of seven taps reads all of its input seven times.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from cloner.engine.kernels.codec.layers import Snake

GAP_FRAMES = 2
"""Frames of zeros behind each segment: 8 latent columns, for the 6 that the first convolution looks back, and at least
64 rows behind the first block, for the 54 of a convolution of seven taps and dilation 9."""

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


def boxed(tensor: Tensor | None, rows: int, columns: int, *, tma: bool) -> Any:
    """A matrix as a kernel takes it, for tiles of ``rows x columns``; see `box`."""
    return TensorDescriptor.from_tensor(tensor, [rows, columns]) if tma and tensor is not None else tensor


@triton.jit
def box(tensor, rows, columns: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, TMA: tl.constexpr):
    """The matrix ``[rows, columns]`` as a descriptor that loads and stores tiles ``[BR, BC]``. What lies outside is
    loaded as zero and not stored.

    With TMA the host has made the descriptor. Before sm_90 it is made here: Triton lowers it to pointers, and only of
    constant strides does it know that 16 bytes can be copied at once.
    """
    if TMA:
        return tensor
    else:  # noqa: RET505 - of a constant condition Triton compiles one branch
        return tl.make_tensor_descriptor(tensor, [rows, columns], [columns, 1], [BR, BC])


@triton.jit
def _sine(x):
    """The sine of the GPU's special function unit: off by less than 1e-6 in the range that half precision resolves."""
    if INTERPRETED:
        return tl.sin(x)
    else:  # noqa: RET505
        return tl.inline_asm_elementwise("sin.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def snake(x, alpha, reciprocal):
    """x + sin(alpha x)^2 / alpha, in fp32."""
    wave = _sine(x * alpha)
    return x + wave * wave * reciprocal


@triton.jit
def add_bias(y, bias_ptr, column, N: tl.constexpr, BN: tl.constexpr):
    """y + bias, for columns `column` to ``column + BN`` of N."""
    columns = column + tl.arange(0, BN)
    return y + tl.load(bias_ptr + columns, mask=columns < N, other=0.0)[None, :]


@triton.jit
def activate(y, alpha_ptr, reciprocal_ptr, column, N: tl.constexpr, BN: tl.constexpr):
    """Snake of y, for columns `column` to ``column + BN`` of N."""
    columns = column + tl.arange(0, BN)
    alpha = tl.load(alpha_ptr + columns, mask=columns < N, other=0.0)[None, :]
    reciprocal = tl.load(reciprocal_ptr + columns, mask=columns < N, other=0.0)[None, :]
    return snake(y, alpha, reciprocal)


@triton.jit
def cleared(y, valid_ptr, row, m, BM: tl.constexpr, PER_FRAME: tl.constexpr):
    """y with zeros in the rows of gaps, for rows `row` to ``row + BM`` of m; `valid` has a number for each frame."""
    rows = row + tl.arange(0, BM)
    valid = tl.load(valid_ptr + rows // PER_FRAME, mask=rows < m, other=0)[:, None]
    return tl.where(valid != 0, y, 0.0)


@triton.jit
def finish(
    y, residual, x, act, row, column, alpha_ptr, reciprocal_ptr, valid_ptr, m,
    N: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PER_FRAME: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, STORE_X: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """The epilogue of a tile: y (+ residual) -> x, and its activation, zero in gaps -> act."""
    if HAS_RESIDUAL:
        y += residual.load([row, column]).to(tl.float32)
    if STORE_X:
        x.store([row, column], y.to(DTYPE))
    y = activate(y, alpha_ptr, reciprocal_ptr, column, N, BN)
    act.store([row, column], cleared(y, valid_ptr, row, m, BM, PER_FRAME).to(DTYPE))


def finish_twin(y: Tensor, residual: Tensor | None, x: Tensor | None, act: Tensor, snake: Snake, valid: Tensor) -> None:
    """What `finish` does, for all rows at once: y ``[rows, channels]`` in fp32."""
    if residual is not None:
        y = y + residual
    if x is not None:
        x.copy_(y)
    act.copy_(cleared_twin(snake_twin(y, snake), valid))


def snake_twin(x: Tensor, snake: Snake) -> Tensor:
    """x + sin(alpha x)^2 / alpha of ``[rows, channels]``."""
    wave = torch.sin(x * snake.alpha)
    return x + wave * wave * snake.reciprocal


def cleared_twin(y: Tensor, valid: Tensor) -> Tensor:
    """y ``[rows, channels]`` with zeros in the rows of gaps."""
    rows = valid.ne(0).repeat_interleave(len(y) // len(valid), output_size=len(y))
    return torch.where(rows[:, None], y, 0.0)
