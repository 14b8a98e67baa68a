"""The sampler in Triton's interpreter and its twin against a reference of their own rule, in double."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cloner.engine.kernels.step.layout import (
    CODEBOOKS,
    CODES,
    CONTINUES,
    DRAWS,
    END,
    ENDED,
    FRAME,
    IDLE,
    MIN_FRAMES,
    NOT_FINITE,
    OWNER,
    PENALTY,
    POSITION,
    RECORD_WIDTH,
    TEMPERATURE,
    TOKEN,
    SamplerBuffers,
    SlotRows,
)
from cloner.engine.kernels.step.sampling import sample_first, sample_next
from cloner.engine.kernels.step.sampling_twins import pick_twin, sample_first_twin, sample_next_twin
from cloner.engine.sampling import PENALTY_WINDOW, RESAMPLE_TOP_P, RESAMPLE_WINDOW, penalised

DIM, FRAMES, FIRST = 16, 3, 100


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def picked(logits: Tensor, top_p: Tensor, temperature: Tensor, noise: Tensor) -> Tensor:
    """The kept set by ranking, of equal ones the first by index, drawn from by index, in double."""
    ranked, order = logits.sort(dim=1, descending=True, stable=True)
    kept = (ranked - logits.logsumexp(1, keepdim=True)).exp().cumsum(1) <= top_p[:, None]
    kept[:, 0] = True
    mask = torch.zeros(logits.shape, dtype=torch.bool).scatter(1, order, kept)
    weight = ((logits - ranked[:, :1]) / temperature[:, None]).double().exp() * mask
    sums = weight.cumsum(1).masked_fill(~mask, -1)
    return (sums > noise[:, None].double() * weight.sum(1, keepdim=True)).float().argmax(1)


class Setting:
    """Random logits, parameters and windows of some rows, some logits tied, some frames first ones."""

    def __init__(self, rows: int, tokens: int, stride: int, seed: int = 0) -> None:
        spread = 0.5 + 5 * rand(rows, 1, seed=seed)
        logits = torch.randn(rows, tokens, generator=torch.Generator().manual_seed(seed + 1)) * spread
        logits[::2] = logits[::2].bfloat16().float()
        self.logits = torch.zeros(rows, stride)
        self.logits[:, :tokens] = logits
        self.tokens = tokens
        parameters = torch.stack(
            [0.1 + 1.3 * rand(rows, seed=3), 0.05 + 0.95 * rand(rows, seed=4), 0.8 + 0.7 * rand(rows, seed=5)], 1
        )
        self.temperature, self.top_p, self.penalty = parameters.unbind(1)
        self.frame = (rand(rows, seed=6) < 0.7).int()
        self.min_frames = (rand(rows, seed=7) < 0.5).int() * 2
        window = (rand(rows + 1, CODEBOOKS, PENALTY_WINDOW, seed=8) * 1000).int()
        window[:-1, :, ::2] = logits[:, : tokens - 1].topk(PENALTY_WINDOW // 2).indices[:, None].int()
        records = torch.zeros(rows + 1, RECORD_WIDTH, dtype=torch.int32)
        records[:rows, FRAME], records[:rows, MIN_FRAMES] = self.frame, self.min_frames
        records[:rows, TEMPERATURE : PENALTY + 1] = parameters.contiguous().view(torch.int32)
        records[:rows, OWNER] = torch.arange(rows)
        self.rows = SlotRows(records, torch.arange(rows, dtype=torch.int32), torch.zeros(1, 1), torch.zeros(1, 1))
        status = torch.full((rows,), 9, dtype=torch.int32)
        self.noise = rand(rows + 1, FRAMES, DRAWS, seed=9)
        self.sampler = SamplerBuffers(
            self.noise, window, torch.zeros(rows + 1, FRAMES, CODEBOOKS, dtype=torch.int16), status, status.clone()
        )

    def copies(self) -> tuple[SlotRows, SamplerBuffers]:
        rows = replace(self.rows, records=self.rows.records.clone(), row_record=self.rows.row_record.clone())
        fields = {name: value.clone() for name, value in vars(self.sampler).items()}
        return rows, SamplerBuffers(**fields)

    def expected(self, book: int) -> Tensor:
        """Choices by the reference; of the first codebook with its second draw."""
        count, first = len(self.frame), self.frame == 0
        logits = self.logits[:, : self.tokens].clone()
        if book == 0:
            logits[:, END].masked_fill_(self.frame < self.min_frames, -torch.inf)
        window = self.sampler.window[:count, book].long()
        logits = penalised(logits, window, torch.where(first, 1.0, self.penalty)[:, None])
        noise = self.noise[torch.arange(count), self.frame.long()]
        choice = picked(logits, self.top_p, self.temperature, noise[:, book])
        if book:
            return choice
        again = picked(logits, torch.full((count,), RESAMPLE_TOP_P), torch.ones(count), noise[:, CODEBOOKS])
        repeated = (window[:, -RESAMPLE_WINDOW:] == choice[:, None]).any(1) & ~first
        return torch.where(repeated, again, choice)


def run_first(sample: object, setting: Setting) -> tuple[SlotRows, SamplerBuffers, Tensor, Tensor]:
    rows, sampler = setting.copies()
    count = len(setting.frame)
    x, squares = torch.zeros(2 * count, DIM), torch.zeros(2 * count * 2)
    embeddings = rand(END, DIM, seed=11)
    sample(  # type: ignore[operator]
        setting.logits, rows, sampler, rand(count, DIM, seed=10), embeddings, x, squares, count, 2,
        first_semantic=FIRST, resampling=True,
    )  # fmt: skip
    return rows, sampler, x, squares


def same(
    ours: tuple[SlotRows, SamplerBuffers, Tensor, Tensor], twins: tuple[SlotRows, SamplerBuffers, Tensor, Tensor]
) -> None:
    assert torch.equal(ours[0].records[:-1], twins[0].records[:-1])
    for name, value in vars(ours[1]).items():
        other = getattr(twins[1], name)
        rows = len(value) - (1 if name in ("window", "generated") else 0)  # the last belongs to idle rows
        assert torch.equal(value[:rows], other[:rows]), name
    torch.testing.assert_close(ours[2], twins[2])
    torch.testing.assert_close(ours[3], twins[3])


def test_first_codes_are_those_of_the_reference() -> None:
    setting = Setting(10, END + 1, END + 128)
    setting.logits[3, 17] = torch.nan
    setting.logits[4, END], setting.min_frames[4] = 100.0, 0
    setting.rows.records[4, MIN_FRAMES] = 0
    setting.rows.row_record[6] = IDLE
    ours, twins = run_first(sample_first, setting), run_first(sample_first_twin, setting)
    # What the twin writes for an idle row is never read.
    twins[1].verdict[6] = 9
    for x, squares in (ours[2:], twins[2:]):
        x[12:14], squares[24:28] = 0, 0
    same(ours, twins)
    expected = setting.expected(0)
    verdict = ours[1].verdict
    for row in range(10):
        if row == 6:
            assert verdict[row] == 9
        elif row == 3:
            assert verdict[row] == NOT_FINITE
        elif expected[row] == END:
            assert verdict[row] == ENDED
        else:
            assert verdict[row] == CONTINUES
            assert ours[0].records[row, CODES] == expected[row]
            assert ours[0].records[row, TOKEN] == FIRST + expected[row]
    assert verdict[4] == ENDED


@pytest.mark.slow
@pytest.mark.parametrize("book", [1, 4, CODEBOOKS - 1])
def test_later_codes_are_those_of_the_reference(book: int) -> None:
    setting = Setting(12, 1024, 1024, seed=book)
    setting.logits[5, 1000] = torch.inf
    logits = setting.logits
    if book == 1:
        logits = torch.stack([torch.full_like(logits, torch.nan), logits], 1).flatten(0, 1)
    found = []
    for sample in (sample_next, sample_next_twin):
        rows, sampler = setting.copies()
        sampler.verdict[:] = CONTINUES
        x, squares = torch.zeros(12, DIM), torch.zeros(24)
        rows.records[:12, POSITION] = torch.arange(12)
        sample(logits, rows, sampler, rand(1024, DIM, seed=11), x, squares, 12, 2, book, last_position=7)
        found.append((rows, sampler, x, squares))
    same(*found)
    codes = found[0][0].records[:12, CODES + book]
    fine = torch.arange(12) != 5
    assert torch.equal(codes[fine].long(), setting.expected(book)[fine])
    assert codes[5] == 0
    if book == CODEBOOKS - 1:
        assert found[0][1].status.tolist() == [CONTINUES] * 5 + [NOT_FINITE] + [CONTINUES] * 6
        assert found[0][0].records[:12, POSITION].tolist() == [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7]
        assert torch.equal(found[0][0].records[:12, FRAME], (setting.frame + 1).clamp(max=FRAMES - 1))


def test_picks_are_those_of_the_reference_in_many_cases() -> None:
    rows = 512
    logits = torch.randn(rows, 600, generator=torch.Generator().manual_seed(1)) * (0.3 + 4 * rand(rows, 1, seed=2))
    logits[::3] = logits[::3].bfloat16().float()
    logits[5:9, 100:] = -torch.inf
    temperature, top_p, noise = 0.1 + rand(rows, seed=3), 0.02 + 0.97 * rand(rows, seed=4), rand(rows, seed=5)
    assert torch.equal(pick_twin(logits, top_p, temperature, noise), picked(logits, top_p, temperature, noise))
