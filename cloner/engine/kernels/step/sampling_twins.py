"""The twins of `sampling.py`'s kernels, apart for their length. They sort; CUDA graphs can hold that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloner.engine.kernels.step.embed import put_squares
from cloner.engine.kernels.step.layout import (
    CODEBOOKS,
    CODES,
    CONTINUES,
    END,
    ENDED,
    FRAME,
    MIN_FRAMES,
    NOT_FINITE,
    PENALTY,
    POSITION,
    TEMPERATURE,
    TOKEN,
    TOP_P,
    SamplerBuffers,
    SlotRows,
)
from cloner.engine.sampling import RESAMPLE_TEMPERATURE, RESAMPLE_TOP_P, RESAMPLE_WINDOW, penalised


@dataclass(frozen=True)
class _Draw:
    """What the rows bring to a choice, all by row; `record` of an idle row is the spare one."""

    record: Tensor
    frame: Tensor
    first: Tensor
    penalty: Tensor
    top_p: Tensor
    temperature: Tensor
    min_frames: Tensor

    @classmethod
    def of(cls, rows: SlotRows, decode: int) -> _Draw:
        record = rows.row_record[:decode].long()
        record = torch.where(record < 0, len(rows.records) - 1, record)
        fields = rows.records[record]
        frame = fields[:, FRAME].long()
        first = frame == 0
        floats = fields.view(torch.float32)
        # Before the first frame nothing can repeat, and the window holds another segment's codes.
        penalty = torch.where(first, 1.0, floats[:, PENALTY])
        return cls(record, frame, first, penalty, floats[:, TOP_P], floats[:, TEMPERATURE], fields[:, MIN_FRAMES])


def pick_twin(logits: Tensor, top_p: Tensor, temperature: Tensor, noise: Tensor) -> Tensor:
    """A token a row from `logits` ``[rows, tokens]``; the rest is ``[rows]``."""
    chance = logits.softmax(1)
    ranked, order = logits.sort(dim=1, descending=True, stable=True)
    kept = chance.gather(1, order).cumsum(1) <= top_p[:, None]
    kept[:, 0] = True
    kept = torch.zeros_like(kept).scatter(1, order, kept)
    weight = torch.where(kept, ((logits - ranked[:, :1]) / temperature.clamp(min=1e-5)[:, None]).exp(), 0.0)
    cumulated = weight.cumsum(1)
    goal = noise[:, None] * cumulated[:, -1:]
    index = torch.arange(logits.shape[1], device=logits.device)
    possible = weight > 0
    place = torch.where(possible & (cumulated > goal), index, logits.shape[1]).amin(1)
    return torch.minimum(place, torch.where(possible, index, 0).amax(1))


def sample_first_twin(
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
    """As `sampling.sample_first`."""
    draw = _Draw.of(rows, decode)
    scores = logits[:decode, : END + 1].clone()
    finite = scores.sum(1).isfinite()
    scores[:, END].masked_fill_(draw.frame < draw.min_frames, -torch.inf)
    window = sampler.window[draw.record, 0].long()
    scores = penalised(scores, window, draw.penalty[:, None])
    noise = sampler.noise[draw.record, draw.frame]
    choice = pick_twin(scores, draw.top_p, draw.temperature, noise[:, 0])
    if resampling:
        repeated = (window[:, -RESAMPLE_WINDOW:] == choice[:, None]).any(1) & ~draw.first
        hot = torch.full_like(draw.top_p, RESAMPLE_TOP_P), torch.full_like(draw.top_p, RESAMPLE_TEMPERATURE)
        choice = torch.where(repeated, pick_twin(scores, *hot, noise[:, CODEBOOKS]), choice)
    ended = choice == END
    code = torch.where(finite & ~ended, choice, 0)
    verdict = torch.where(finite, torch.where(ended, ENDED, CONTINUES), NOT_FINITE)
    sampler.verdict[:decode] = verdict.int()
    rows.records[draw.record, TOKEN] = (first_semantic + code).int()
    _store(code, 0, draw, rows, sampler)
    pair = torch.stack([hidden[:decode], fast_embeddings[code]], 1).flatten(0, 1)
    x[: 2 * decode] = pair
    put_squares(squares, pair, parts)


def sample_next_twin(
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
    """As `sampling.sample_next`."""
    draw = _Draw.of(rows, decode)
    scores = logits[1 : 2 * decode : 2] if book == 1 else logits[:decode]
    finite = scores.sum(1).isfinite()
    window = sampler.window[draw.record, book].long()
    scores = penalised(scores, window, draw.penalty[:, None])
    noise = sampler.noise[draw.record, draw.frame, book]
    code = torch.where(finite, pick_twin(scores, draw.top_p, draw.temperature, noise), 0)
    _store(code, book, draw, rows, sampler)
    if book < CODEBOOKS - 1:
        x[:decode] = fast_embeddings[code]
        put_squares(squares, x[:decode], parts)
        return
    sampler.status[:decode] = torch.where(finite, sampler.verdict[:decode], NOT_FINITE)
    position = rows.records[draw.record, POSITION] + 1
    rows.records[draw.record, POSITION] = position.clamp(max=last_position)
    rows.records[draw.record, FRAME] = (draw.frame + 1).clamp(max=sampler.noise.shape[1] - 1).int()


def _store(code: Tensor, book: int, draw: _Draw, rows: SlotRows, sampler: SamplerBuffers) -> None:
    rows.records[draw.record, CODES + book] = code.int()
    sampler.generated[draw.record, draw.frame, book] = code.to(torch.int16)
    window = sampler.window[draw.record, book]
    later = torch.cat([window[:, 1:], code[:, None].int()], 1)
    sampler.window[draw.record, book] = torch.where(draw.first[:, None], code[:, None].int(), later)
