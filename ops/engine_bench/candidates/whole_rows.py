"""Norm and rotation of heads that are read as whole rows: today's `rotary.rotated` reads even and odd elements apart,
two bytes at a time."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def halves(x, HEAD: tl.constexpr):
    """Even and odd columns of `x` ``[n, HEAD]``."""
    return tl.split(tl.reshape(x, (x.shape[0], HEAD // 2, 2)))


@triton.jit
def turned(x, weight, turn, eps, NORMED: tl.constexpr, HEAD: tl.constexpr, dtype: tl.constexpr):
    """Heads `x` ``[n, HEAD]``, normed and rotated as `rotary.rotated` does it. `weight` are pointers ``[n, HEAD]``,
    `turn` ``[n, HEAD]`` values: cosines and sines in turn."""
    even, odd = halves(x.to(tl.float32), HEAD)
    cos, sin = halves(turn, HEAD)
    if NORMED:
        factor = tl.rsqrt(tl.sum(even * even + odd * odd, 1) / HEAD + eps)[:, None]
        weight_even, weight_odd = halves(tl.load(weight).to(tl.float32), HEAD)
        even = ((even * factor).to(dtype).to(tl.float32) * weight_even).to(dtype).to(tl.float32)
        odd = ((odd * factor).to(dtype).to(tl.float32) * weight_odd).to(dtype).to(tl.float32)
    return tl.interleave((even * cos - odd * sin).to(dtype), (even * sin + odd * cos).to(dtype))
