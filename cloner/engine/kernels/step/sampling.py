"""Choosing a frame's codes, without sorting and without asking the host.

The rule is that of `cloner.engine.sampling`: repetition penalty, then top-p on the untempered probabilities, then
temperature. For logits z after the penalty, with p = softmax(z) and u uniform in 0..1::

    kept  = tokens whose p, cumulated in falling order and their own included, does not exceed top_p; the likeliest
            always; of equal logits at the border the first by index
    w_j   = exp((z_j - max z) / temperature) for kept j, else 0
    token = the first j with  sum(w_i for i <= j) > u * sum(w)

The draw goes over the kept tokens by index, where the CPU's goes by falling probability: the same distribution, and
another token for the same random number. A first code that stood in one of the last frames is drawn once more, hotter.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cloner.engine.kernels.launch import after_previous, launch, power_of_two
from cloner.engine.kernels.step.embed import store_squares
from cloner.engine.kernels.step.layout import (
    CODEBOOKS,
    CODES,
    CONTINUES,
    DRAWS,
    END,
    ENDED,
    FRAME,
    MIN_FRAMES,
    NOT_FINITE,
    PENALTY,
    POSITION,
    RECORD_WIDTH,
    TEMPERATURE,
    TOKEN,
    TOP_P,
    SamplerBuffers,
    SlotRows,
)
from cloner.engine.sampling import PENALTY_WINDOW, RESAMPLE_TEMPERATURE, RESAMPLE_TOP_P, RESAMPLE_WINDOW

_TOKEN, _POSITION, _FRAME = tl.constexpr(TOKEN), tl.constexpr(POSITION), tl.constexpr(FRAME)
_MIN_FRAMES, _TEMPERATURE = tl.constexpr(MIN_FRAMES), tl.constexpr(TEMPERATURE)
_TOP_P, _PENALTY, _CODES = tl.constexpr(TOP_P), tl.constexpr(PENALTY), tl.constexpr(CODES)
_RECORD, _CODEBOOKS, _DRAWS = tl.constexpr(RECORD_WIDTH), tl.constexpr(CODEBOOKS), tl.constexpr(DRAWS)
_END, _WINDOW = tl.constexpr(END), tl.constexpr(PENALTY_WINDOW)
_AGAIN_WINDOW, _AGAIN_TOP_P = tl.constexpr(RESAMPLE_WINDOW), tl.constexpr(RESAMPLE_TOP_P)
_AGAIN_TEMPERATURE = tl.constexpr(RESAMPLE_TEMPERATURE)
_CONTINUES, _ENDED, _NOT_FINITE = tl.constexpr(CONTINUES), tl.constexpr(ENDED), tl.constexpr(NOT_FINITE)

FIRST_WARPS, NEXT_WARPS = 16, 4
"""Warps of a program, for 4,097 and for 1,024 logits."""


@triton.jit
def _pick(logits, index, top_p, temperature, noise, WAYS: tl.constexpr, ROUNDS: tl.constexpr):
    """A token by the rule above. The lowest kept logit is found by bisection on the bits of its distance to the
    greatest: a distance is never negative, so its bits are in its order, and the result is exact. WAYS places are tried
    at once: fewer rounds, each with a reduction over all threads."""
    top = tl.max(logits, 0)
    distance = top - logits
    key = distance.to(tl.int32, bitcast=True)
    chance = tl.exp(-distance)
    chance = chance / tl.sum(chance, 0)
    low = -1  # the probabilities of what is at most this far away do not exceed top_p together ...
    high = 0x7F800001  # ... and those of what is at most this far away are taken to do
    if WAYS == 1:
        for _ in range(31):
            middle = low + (high - low) // 2
            fits = tl.sum(tl.where(key <= middle, chance, 0.0), 0) <= top_p
            low = tl.where(fits, middle, low)
            high = tl.where(fits, high, middle)
    else:
        way = 1 + tl.arange(0, WAYS)
        for _ in range(ROUNDS):
            stride = (high - low + WAYS) // (WAYS + 1)
            middle = low + stride * way
            sums = tl.sum(tl.where(key[None, :] <= middle[:, None], chance[None, :], 0.0), 1)
            count = tl.sum(((sums <= top_p) & (middle < high)).to(tl.int32), 0)
            high = tl.minimum(high, low + stride * (count + 1))
            low = low + stride * count
    border = tl.min(tl.where(key > low, key, 0x7FFFFFFF), 0)
    tied = key == border
    within = tl.sum(tl.where(key <= low, chance, 0.0), 0)
    each = tl.max(tl.where(tied, chance, 0.0), 0)
    rank = tied.to(tl.int32)
    if tl.sum(rank, 0) > 1:
        rank = tl.cumsum(rank, 0)
    fits = (within + rank.to(tl.float32) * each <= top_p) | ((border == 0) & (rank == 1))
    kept = (key <= low) | (tied & fits)
    weight = tl.where(kept, tl.exp(-distance / tl.maximum(temperature, 1e-5)), 0.0)
    cumulated = tl.cumsum(weight, 0)
    goal = noise * tl.max(cumulated, 0)
    possible = weight > 0.0
    place = tl.min(tl.where(possible & (cumulated > goal), index, 0x7FFFFFFF), 0)
    return tl.minimum(place, tl.max(tl.where(possible, index, 0), 0))  # rounding may put the noise behind the last


@triton.jit
def _penalised(logits, index, window, penalty):
    """`logits` with those of the tokens in `window` (a pointer) made less likely."""
    stands = index < 0
    for place in tl.static_range(_WINDOW):  # unrolled, so that the loads go out together
        stands = stands | (index == tl.load(window + place))
    return tl.where(stands, tl.where(logits < 0, logits * penalty, logits / penalty), logits)


@triton.jit
def _remember(window, code, first):
    """Push `code` into the window; a segment's first code fills it."""
    place = tl.arange(0, _WINDOW)
    later = tl.load(window + place + 1, place < _WINDOW - 1, 0)
    tl.debug_barrier()  # all threads have read before one writes
    tl.store(window + place, tl.where(first | (place == _WINDOW - 1), code, later))


@triton.jit
def _put_row(x, squares, row, source, place, DIM: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """Copy row `place` of `source` to row `row` of `x`, with its sums of squares."""
    dim = tl.arange(0, BLOCK)
    inside = dim < DIM
    value = tl.load(source + place * DIM + dim, inside, 0.0)
    tl.store(x + row * DIM + dim, value, inside)
    store_squares(squares, row, value.to(tl.float32), PARTS)


@triton.jit
def _float(fields, place):
    return tl.load(fields + place).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["first_semantic"])
def sample_first_kernel(
    logits, row_record, records, noise, window, generated, verdict, hidden, fast_embeddings, x, squares, first_semantic,
    FRAMES: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr, DIM_BLOCK: tl.constexpr,
    PARTS: tl.constexpr, RESAMPLING: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a row: its first code, and the two tokens that the fast transformer begins with."""
    after_previous(EARLY)
    row = tl.program_id(0)
    record = tl.load(row_record + row)
    if record < 0:
        return
    fields = records + record * _RECORD
    frame = tl.load(fields + _FRAME)
    first = frame == 0
    penalty = tl.where(first, 1.0, _float(fields, _PENALTY))
    index = tl.arange(0, BLOCK)
    scores = tl.load(logits + row.to(tl.int64) * STRIDE + index, index <= _END, float("-inf"))
    total = tl.sum(tl.where(index <= _END, scores, 0.0), 0)
    finite = tl.abs(total) < float("inf")
    scores = tl.where((index == _END) & (frame < tl.load(fields + _MIN_FRAMES)), float("-inf"), scores)
    books = window + record * (_CODEBOOKS * _WINDOW)
    scores = _penalised(scores, index, books, penalty)
    draws = noise + (record.to(tl.int64) * FRAMES + frame) * _DRAWS
    choice = _pick(scores, index, _float(fields, _TOP_P), _float(fields, _TEMPERATURE), tl.load(draws), 1, 31)
    if RESAMPLING:
        place = tl.arange(0, _WINDOW)
        same = (tl.load(books + place) == choice) & (place >= _WINDOW - _AGAIN_WINDOW)
        if (tl.max(same.to(tl.int32), 0) > 0) & (frame > 0):
            choice = _pick(scores, index, _AGAIN_TOP_P, _AGAIN_TEMPERATURE, tl.load(draws + _CODEBOOKS), 1, 31)
    ended = choice == _END
    code = tl.where(ended, 0, choice)
    code = tl.where(finite, code, 0)
    tl.store(verdict + row, tl.where(finite, tl.where(ended, _ENDED, _CONTINUES), _NOT_FINITE))
    tl.store(fields + _TOKEN, first_semantic + code)
    tl.store(fields + _CODES, code)
    tl.store(generated + (record.to(tl.int64) * FRAMES + frame) * _CODEBOOKS, code.to(tl.int16))
    _remember(books, code, first)
    _put_row(x, squares, 2 * row, hidden, row, DIM, DIM_BLOCK, PARTS)
    _put_row(x, squares, 2 * row + 1, fast_embeddings, code, DIM, DIM_BLOCK, PARTS)


@triton.jit(do_not_specialize=["book", "last_position"])
def sample_next_kernel(
    logits, row_record, records, noise, window, generated, verdict, status, fast_embeddings, x, squares, book,
    last_position,
    FIRST: tl.constexpr, LAST: tl.constexpr, FRAMES: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr, PARTS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a row: its code of codebook `book`, and the fast transformer's next token; after the LAST codebook
    the record steps on. The logits of row r are in row r, of the FIRST pass in row 2r + 1."""
    after_previous(EARLY)
    row = tl.program_id(0)
    record = tl.load(row_record + row)
    if record < 0:
        return
    fields = records + record * _RECORD
    frame = tl.load(fields + _FRAME)
    first = frame == 0
    penalty = tl.where(first, 1.0, _float(fields, _PENALTY))
    index = tl.arange(0, BLOCK)
    source = row * 2 + 1 if FIRST else row
    scores = tl.load(logits + source * BLOCK + index)
    finite = tl.abs(tl.sum(scores, 0)) < float("inf")
    books = window + record * (_CODEBOOKS * _WINDOW) + book * _WINDOW
    scores = _penalised(scores, index, books, penalty)
    draw = tl.load(noise + (record.to(tl.int64) * FRAMES + frame) * _DRAWS + book)
    code = _pick(scores, index, _float(fields, _TOP_P), _float(fields, _TEMPERATURE), draw, 4, 15)
    code = tl.where(finite, code, 0)
    tl.store(fields + _CODES + book, code)
    tl.store(generated + (record.to(tl.int64) * FRAMES + frame) * _CODEBOOKS + book, code.to(tl.int16))
    _remember(books, code, first)
    if LAST:
        # The last logits have seen all that came before, so what is not finite there shows in them.
        tl.store(status + row, tl.where(finite, tl.load(verdict + row), _NOT_FINITE))
        # A slot whose segment is finished may still step along; it must not leave its bounds.
        tl.store(fields + _POSITION, tl.minimum(tl.load(fields + _POSITION) + 1, last_position))
        tl.store(fields + _FRAME, tl.minimum(frame + 1, FRAMES - 1))
    else:
        _put_row(x, squares, row, fast_embeddings, code, DIM, DIM_BLOCK, PARTS)


def sample_first(
    logits: Tensor,
    rows: SlotRows,
    sampler: SamplerBuffers,
    hidden: Tensor,
    fast_embeddings: Tensor,
    x: Tensor,
    squares: Tensor,
    decode: int,
    parts: int,
    *,
    first_semantic: int,
    resampling: bool,
) -> None:
    """First codes of `decode` rows from `logits` ``[.., at least END + 1]`` fp32, into records, window and `generated`;
    to `x` ``[.., dim]`` rows 2r and 2r + 1 go `hidden[r]` and the code's embedding, to `squares` their sums of
    squares."""
    launch(
        sample_first_kernel,
        (decode,),
        logits,
        rows.row_record,
        rows.records,
        sampler.noise,
        sampler.window,
        sampler.generated,
        sampler.verdict,
        hidden,
        fast_embeddings,
        x,
        squares,
        first_semantic,
        FRAMES=sampler.noise.shape[1],
        STRIDE=logits.shape[1],
        BLOCK=2 * END,
        DIM=x.shape[1],
        DIM_BLOCK=power_of_two(x.shape[1]),
        PARTS=parts,
        RESAMPLING=resampling,
        num_warps=FIRST_WARPS,
    )


def sample_next(
    logits: Tensor,
    rows: SlotRows,
    sampler: SamplerBuffers,
    fast_embeddings: Tensor,
    x: Tensor,
    squares: Tensor,
    decode: int,
    parts: int,
    book: int,
    *,
    last_position: int,
) -> None:
    """Codes of codebook `book` (1 to 9) of `decode` rows from `logits` ``[.., 1024]`` fp32; to `x` row r goes the
    code's embedding. After the last codebook `status` is written, and positions and frames step on."""
    launch(
        sample_next_kernel,
        (decode,),
        logits,
        rows.row_record,
        rows.records,
        sampler.noise,
        sampler.window,
        sampler.generated,
        sampler.verdict,
        sampler.status,
        fast_embeddings,
        x,
        squares,
        book,
        last_position,
        FIRST=book == 1,
        LAST=book == CODEBOOKS - 1,
        FRAMES=sampler.noise.shape[1],
        BLOCK=logits.shape[1],
        DIM=x.shape[1],
        DIM_BLOCK=power_of_two(x.shape[1]),
        PARTS=parts,
        num_warps=NEXT_WARPS,
    )
