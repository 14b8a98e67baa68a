"""Input of the slow transformer, from the rows' records.

For token t of a row, ``x = E[t]``; where t is a semantic token, that is a frame, its codes c are added::

    x = (E[t] + sum over codebooks b of C[b * codebook_size + c_b]) * frame_scale
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from cloner.engine.kernels.launch import after_previous, launch, power_of_two
from cloner.engine.kernels.step.layout import CODEBOOKS, CODES, END, RECORD_WIDTH, TOKEN, EmbeddingTables

_TOKEN = tl.constexpr(TOKEN)
_CODES = tl.constexpr(CODES)
_CODEBOOKS = tl.constexpr(CODEBOOKS)
_RECORD = tl.constexpr(RECORD_WIDTH)


@triton.jit
def store_squares(squares, row, x, PARTS: tl.constexpr):
    """Sum of squares of a whole row x, as the PARTS partial sums that `linear` reads: the first has it all."""
    part = tl.arange(0, PARTS)
    tl.store(squares + row * PARTS + part, tl.where(part == 0, tl.sum(x * x, 0), 0.0))


@triton.jit(do_not_specialize=["first_semantic", "codebook_size"])
def embed_kernel(
    records, row_record, tokens, codes, x, squares, first_semantic, codebook_size, frame_scale,
    SEMANTIC: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a row. An idle row gets zeros, so that its residual stream does not grow from step to step."""
    after_previous(EARLY)
    row = tl.program_id(0)
    record = tl.load(row_record + row)
    dim = tl.arange(0, BLOCK)
    inside = dim < DIM
    total = tl.zeros([BLOCK], tl.float32)
    if record >= 0:
        fields = records + record * _RECORD
        token = tl.load(fields + _TOKEN)
        total = tl.load(tokens + token.to(tl.int64) * DIM + dim, inside, 0.0).to(tl.float32)
        if (token >= first_semantic) & (token < first_semantic + SEMANTIC):
            for book in tl.static_range(_CODEBOOKS):
                code = tl.load(fields + _CODES + book) + book * codebook_size
                total += tl.load(codes + code * DIM + dim, inside, 0.0).to(tl.float32)
            total *= frame_scale
    rounded = total.to(x.dtype.element_ty)
    tl.store(x + row * DIM + dim, rounded, inside)
    store_squares(squares, row, rounded.to(tl.float32), PARTS)


def embed(
    records: Tensor, row_record: Tensor, tables: EmbeddingTables, x: Tensor, squares: Tensor, rows: int, parts: int
) -> None:
    """Write the input of the first `rows` rows to `x` ``[.., dim]`` and its sums of squares, `parts` (a power of two)
    partial sums a row, to `squares` ``[rows * parts]`` fp32."""
    dim = x.shape[1]
    launch(
        embed_kernel,
        (rows,),
        records,
        row_record,
        tables.tokens,
        tables.codes,
        x,
        squares,
        tables.first_semantic,
        tables.codebook_size,
        tables.frame_scale,
        SEMANTIC=END,
        DIM=dim,
        BLOCK=power_of_two(dim),
        PARTS=parts,
        num_warps=4,
    )


def embed_twin(
    records: Tensor, row_record: Tensor, tables: EmbeddingTables, x: Tensor, squares: Tensor, rows: int, parts: int
) -> None:
    """As `embed`, with torch's embedding lookups."""
    record = row_record[:rows].long()
    fields = records[record.clamp(min=0)]
    token = fields[:, TOKEN].long()
    semantic = (token >= tables.first_semantic) & (token < tables.first_semantic + END)
    offsets = torch.arange(CODEBOOKS, device=x.device) * tables.codebook_size
    codes = fields[:, CODES : CODES + CODEBOOKS].long() + offsets
    frames = functional.embedding(torch.where(semantic[:, None], codes, offsets), tables.codes).float().sum(1)
    own = functional.embedding(token, tables.tokens).float()
    total = torch.where(semantic[:, None], (own + frames) * tables.frame_scale, own)
    x[:rows] = torch.where((record >= 0)[:, None], total, 0.0).to(x.dtype)
    put_squares(squares, x[:rows], parts)


def put_squares(squares: Tensor, x: Tensor, parts: int) -> None:
    """Sums of squares of `x` ``[rows, dim]`` as `parts` partial sums a row, of which the first has it all."""
    sums = x.float().square().sum(1)
    view = squares[: len(x) * parts].view(len(x), parts)
    view.zero_()
    view[:, 0] = sums
