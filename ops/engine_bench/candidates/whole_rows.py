"""Norm and rotation of heads without `tl.interleave`, of whole rows.

Triton takes an interleaving (`tt.join`) in what leads to an operand of a matrix product for a conversion from 8 bits,
and lays both operands out for that. So today's kernels read a page of keys from shared memory, and for each page the
query again, with 32 loads of 8 bytes a thread (`LDS.64`), where 16 matrix loads (`ldmatrix`) do; seen in Triton 3.7.1's
machine code for sm_90. They also read even and odd elements of the rows apart, 2 bytes at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def turned(x, weight, turn, eps, NORMED: tl.constexpr, HEAD: tl.constexpr, dtype: tl.constexpr):
    """Heads `x` ``[n, HEAD]``, normed and rotated as `rotary.rotated` does it. `weight` are pointers ``[n, HEAD]``,
    `turn` ``[n, HEAD]`` values: cosines and sines in turn. Each pair is multiplied by its 2 x 2 matrix."""
    x = x.to(tl.float32)
    if NORMED:
        factor = tl.rsqrt(tl.sum(x * x, 1) / HEAD + eps)[:, None]
        x = ((x * factor).to(dtype).to(tl.float32) * tl.load(weight).to(tl.float32)).to(dtype).to(tl.float32)
    cos, sin = tl.split(tl.reshape(turn, (x.shape[0], HEAD // 2, 2)))
    cos, sin = cos[:, :, None, None], sin[:, :, None, None]
    to = tl.arange(0, 2)[None, None, :, None]
    source = tl.arange(0, 2)[None, None, None, :]
    matrix = tl.where(to == source, cos, tl.where(to == 0, -sin, sin))
    pairs = tl.reshape(x, (x.shape[0], HEAD // 2, 1, 2))
    return tl.reshape(tl.sum(pairs * matrix, 3), (x.shape[0], HEAD)).to(dtype)
