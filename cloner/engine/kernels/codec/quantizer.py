"""What lies between the matrix products of the codec's quantizer: rotary positions, gates, depthwise convolutions.

Rows as in `rows.py`. `first` ``[frames]`` has, for each frame, the frame at which its segment begins, and -1 in gaps,
where results may be anything finite.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.launch import launch

GATE_BLOCK = 1024


@triton.jit
def rotate_kernel(
    qkv_ptr, table_ptr, first_ptr, HEADS: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr, BH: tl.constexpr
):
    """One program: a row. HEADS are those of queries and keys together; BH is the power of two above."""
    row = tl.program_id(0)
    first = tl.load(first_ptr + row)
    position = tl.where(first < 0, 0, row - first)
    pair = tl.arange(0, HALF)
    head = tl.arange(0, BH)[:, None]
    cosine = tl.load(table_ptr + (position * HALF + pair) * 2)[None, :]
    sine = tl.load(table_ptr + (position * HALF + pair) * 2 + 1)[None, :]
    at = qkv_ptr + row.to(tl.int64) * WIDTH + head * (2 * HALF) + pair[None, :] * 2
    inside = (head < HEADS) & (pair[None, :] < HALF)
    a = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(at + 1, mask=inside, other=0.0).to(tl.float32)
    tl.store(at, a * cosine - b * sine, mask=inside)
    tl.store(at + 1, b * cosine + a * sine, mask=inside)


def rotate(qkv: Tensor, table: Tensor, first: Tensor, heads: int) -> None:
    """Turn the pairs of queries and keys by their position in the segment, in place.

    `qkv` is ``[frames, 3 * heads * 2 * half]``, `table` ``[positions, half, 2]`` cosines and sines in fp32:
    (a, b) -> (a cos - b sin, b cos + a sin).
    """
    both = 2 * heads
    launch(
        rotate_kernel,
        (len(qkv),),
        qkv,
        table,
        first,
        HEADS=both,
        HALF=table.shape[1],
        WIDTH=qkv.shape[1],
        BH=triton.next_power_of_2(both),
    )


def rotate_twin(qkv: Tensor, table: Tensor, first: Tensor, heads: int) -> None:
    """What `rotate` does, in plain torch."""
    rows = torch.arange(len(qkv), device=qkv.device)
    turns = table[torch.where(first < 0, 0, rows - first)][:, None]  # [frames, 1, half, 2]
    pairs = qkv.view(len(qkv), -1, table.shape[1], 2)[:, : 2 * heads]
    a, b = pairs.float().unbind(-1)
    cosine, sine = turns.unbind(-1)
    pairs.copy_(torch.stack((a * cosine - b * sine, b * cosine + a * sine), dim=-1))


@triton.jit
def gate_kernel(x_ptr, out_ptr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One program: BLOCK columns of a row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    a = tl.load(x_ptr + row * 2 * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x_ptr + row * 2 * WIDTH + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * WIDTH + column, a / (1.0 + tl.exp(-a)) * b, mask=inside)


def gate(x: Tensor) -> Tensor:
    """silu(a) * b, ``[frames, width]``, of the halves of x ``[frames, 2 * width]``."""
    width = x.shape[1] // 2
    out = x.new_empty(len(x), width)
    launch(gate_kernel, (len(x), triton.cdiv(width, GATE_BLOCK)), x, out, WIDTH=width, BLOCK=GATE_BLOCK)
    return out


def gate_twin(x: Tensor) -> Tensor:
    """What `gate` does, in plain torch."""
    a, b = x.float().chunk(2, dim=1)
    return (functional.silu(a) * b).to(x.dtype)


@triton.jit
def depthwise_kernel(
    x_ptr, w_ptr, bias_ptr, scale_ptr, shift_ptr, first_ptr, out_ptr,
    EPS: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, PER_FRAME: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program: a row of C channels; BC is the power of two above."""
    row = tl.program_id(0)
    first = tl.load(first_ptr + row // PER_FRAME)
    start = tl.where(first < 0, row, first * PER_FRAME)
    column = tl.arange(0, BC)
    inside = column < C
    y = tl.load(bias_ptr + column, mask=inside, other=0.0)
    for tap in tl.static_range(TAPS):
        source = row - (TAPS - 1 - tap)
        x = tl.load(x_ptr + source.to(tl.int64) * C + column, mask=inside & (source >= start), other=0.0)
        y += x.to(tl.float32) * tl.load(w_ptr + tap * C + column, mask=inside, other=0.0)
    y = tl.where(inside, y - tl.sum(y, axis=0) / C, 0.0)
    y = y * tl.rsqrt(tl.sum(y * y, axis=0) / C + EPS)
    y = y * tl.load(scale_ptr + column, mask=inside, other=0.0) + tl.load(shift_ptr + column, mask=inside, other=0.0)
    tl.store(out_ptr + row.to(tl.int64) * C + column, y, mask=inside)


def depthwise_norm(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, eps: float, first: Tensor
) -> Tensor:
    """A causal convolution of each channel by itself, and layer norm over the channels, ``[rows, channels]``:

    y[m, c] = bias[c] + sum over t of x[m - (taps - 1 - t), c] * weight[t, c], of the segment's own rows, and then
    (y - mean) / sqrt(variance + eps) * scale + shift. `weight` is ``[taps, channels]``, all but x in fp32.
    """
    out = torch.empty_like(x)
    rows, channels = x.shape
    launch(
        depthwise_kernel,
        (rows,),
        x,
        weight,
        bias,
        scale,
        shift,
        first,
        out,
        EPS=eps,
        C=channels,
        TAPS=len(weight),
        PER_FRAME=rows // len(first),
        BC=triton.next_power_of_2(channels),
    )
    return out


def depthwise_norm_twin(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, eps: float, first: Tensor
) -> Tensor:
    """What `depthwise_norm` does, in plain torch."""
    rows, taps = len(x), len(weight)
    per_frame = rows // len(first)
    row = torch.arange(rows, device=x.device)
    begin = first.repeat_interleave(per_frame, output_size=rows)
    start = torch.where(begin < 0, row, begin * per_frame)
    padded = functional.pad(x.float(), (0, 0, taps - 1, 0))
    y = bias.expand(rows, -1)
    for tap in range(taps):
        own = row - (taps - 1 - tap) >= start
        y = y + torch.where(own[:, None], padded[tap : tap + rows], 0.0) * weight[tap]
    return functional.layer_norm(y, (x.shape[1],), scale, shift, eps).to(x.dtype)
