"""The sampler's kernels on this device: picks against a reference in double, and draws against the CPU sampler's
rule."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cloner.engine.kernels.step.kernel_set import TRITON, TWINS
from cloner.engine.kernels.step.layout import (
    CODEBOOKS,
    CODES,
    DRAWS,
    END,
    ENDED,
    FRAME,
    PENALTY,
    RECORD_WIDTH,
    TEMPERATURE,
    SamplerBuffers,
    SlotRows,
)
from cloner.engine.sampling import PENALTY_WINDOW, Sampling, penalised, sample
from ops.engine_bench.table import Row

CASES, EXACT, CHUNK = 4096, 65_536, 512
BOOKS = ((0, END + 1, END + 128), (3, 1024, 1024))
"""Codebook, tokens, and length of a row of logits."""


def rows(device: torch.device) -> Iterator[Row]:
    """For the first codebook and a later one."""
    random = torch.Generator(device).manual_seed(3)
    cases, exact = (CASES, EXACT) if device.type == "cuda" else (64, 0)
    for book, tokens, stride in BOOKS:
        same = sum(_same(book, tokens, stride, random, device) for _ in range(0, cases, min(cases, CHUNK)))
        yield Row(f"check: sampler, codebook {book}, picks of the reference", "picks", [same], goal=f"{cases}")
        if exact:
            value, freedom = _chi_square(book, tokens, stride, random, device)
            sigma = (value - freedom) / (2 * freedom) ** 0.5
            if sigma > 5:
                raise RuntimeError(f"chi-square {value:.1f} on {freedom} degrees of freedom")
            what = f"check: sampler, codebook {book}, chi-square of {exact} draws"
            yield Row(what, "sigma", [sigma], goal="<= 5", remark=f"{value:.1f} on {freedom} degrees of freedom")


def _run(book: int, logits: Tensor, parameters: Tensor, window: Tensor, noise: Tensor) -> Tensor:
    """Codes that the kernel chooses at frame 1, without a second draw; the end token as `END`."""
    count, device = len(logits), logits.device
    records = torch.zeros(count + 1, RECORD_WIDTH, dtype=torch.int32, device=device)
    records[:, FRAME] = 1
    records[:count, TEMPERATURE : PENALTY + 1] = parameters.contiguous().view(torch.int32)
    slots = SlotRows(records, torch.arange(count, dtype=torch.int32, device=device), records, records)
    draws = torch.zeros(count + 1, 3, DRAWS, device=device)
    draws[:count, 1, book] = noise
    windows = torch.zeros(count + 1, CODEBOOKS, PENALTY_WINDOW, dtype=torch.int32, device=device)
    windows[:count, book] = window.int()
    status = torch.zeros(count, dtype=torch.int32, device=device)
    generated = torch.zeros(count + 1, 3, CODEBOOKS, dtype=torch.int16, device=device)
    sampler = SamplerBuffers(draws, windows, generated, status, status.clone())
    embeddings = torch.zeros(END, 64, device=device)
    x, squares = torch.zeros(2 * count, 64, device=device), torch.zeros(2 * count, device=device)
    kernels = TRITON if device.type == "cuda" else TWINS
    if book == 0:
        kernels.sample_first(
            logits, slots, sampler, x.clone(), embeddings, x, squares, count, 1, first_semantic=0, resampling=False
        )
        return torch.where(sampler.verdict == ENDED, END, records[:count, CODES]).long()
    kernels.sample_next(logits, slots, sampler, embeddings, x, squares, count, 1, book, last_position=9)
    return records[:count, CODES + book].long()


def _same(book: int, tokens: int, stride: int, random: torch.Generator, device: torch.device) -> int:
    """How many picks of a chunk are those of the reference."""
    count = CHUNK if device.type == "cuda" else 64

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, device=device)

    logits = torch.zeros(count, stride, device=device)
    logits[:, :tokens] = torch.randn(count, tokens, generator=random, device=device) * (0.5 + 5 * uniform(count, 1))
    logits[::2] = logits[::2].bfloat16().float()  # many ties
    parameters = torch.stack([0.1 + 1.3 * uniform(count), 0.05 + 0.95 * uniform(count), 0.8 + 0.7 * uniform(count)], 1)
    window = (uniform(count, PENALTY_WINDOW) * (tokens - 1)).long()
    window[:, ::2] = logits[:, : tokens - 1].topk(PENALTY_WINDOW // 2).indices
    noise = uniform(count)
    chosen = _run(book, logits, parameters, window, noise)
    temperature, top_p, penalty = (parameters[:, n : n + 1] for n in range(3))
    scores = penalised(logits[:, :tokens], window, penalty)
    ranked, order = scores.sort(dim=1, descending=True, stable=True)
    kept = (ranked - scores.logsumexp(1, keepdim=True)).exp().cumsum(1) <= top_p
    kept[:, 0] = True
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, kept)
    weight = ((scores - ranked[:, :1]) / temperature).double().exp() * mask
    sums = weight.cumsum(1).masked_fill(~mask, -1)
    expected = (sums > noise[:, None].double() * weight.sum(1, keepdim=True)).float().argmax(1)
    return int((chosen == expected).sum())


def _chi_square(
    book: int, tokens: int, stride: int, random: torch.Generator, device: torch.device
) -> tuple[float, int]:
    """Of as many draws by the kernel and by the CPU sampler's rule from one row of logits."""
    logits = torch.zeros(1, stride, device=device)
    logits[:, :tokens] = torch.randn(1, tokens, generator=random, device=device) * 3
    window = torch.randint(0, tokens - 1, (1, PENALTY_WINDOW), generator=random, device=device)
    parameters = torch.tensor([[0.8, 0.8, 1.2]], device=device)
    scores = penalised(logits[:, :tokens], window, parameters[:, 2:])
    ours, theirs = [], []
    for _ in range(0, EXACT, 4096):
        noise = torch.rand(2, 4096, generator=random, device=device)
        many = logits.expand(4096, -1).contiguous()
        ours.append(_run(book, many, parameters.expand(4096, -1), window.expand(4096, -1), noise[0]))
        sampling = Sampling(*(parameters[:, n : n + 1].expand(4096, 1) for n in range(3)))
        theirs.append(sample(scores.expand(4096, -1), sampling, noise[1]))
    a, b = (torch.cat(draws).bincount(minlength=tokens).double() for draws in (ours, theirs))
    often = (a + b) >= 20
    a, b = (torch.cat([counts[often], counts[~often].sum()[None]]) for counts in (a, b))
    some = (a + b) > 0
    return float(((a - b) ** 2 / (a + b))[some].sum()), int(some.sum()) - 1
