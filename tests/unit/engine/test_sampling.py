from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from cloner.engine.checkpoint import fish_inference
from cloner.engine.sampling import LIKELY, PENALTY_WINDOW, Sampling, penalised, resample_repeated, sample

DRAWS = 100_000


def parameters(temperature: float, top_p: float, penalty: float = 1.0, rows: int = 1) -> Sampling:
    return Sampling(*(torch.full((rows, 1), value) for value in (temperature, top_p, penalty)))


def uniform(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def some_logits(tokens: int, spread: float, seed: int = 0) -> Tensor:
    return spread * torch.randn(tokens, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "spread", "temperature", "top_p", "penalty"),
    [
        (1024, 3.0, 0.7, 0.7, 1.2),
        (4097, 4.0, 1.0, 0.7, 1.1),
        (400, 1.0, 1.5, 0.95, 1.2),  # more than `LIKELY` tokens are kept
        (60, 1.0, 0.7, 0.8, 1.0),
        (400, 3.0, 0.7, 1.0, 0.8),
    ],
)
def test_tokens_are_as_frequent_as_in_upstream(
    tokens: int, spread: float, temperature: float, top_p: float, penalty: float
) -> None:
    logits = some_logits(tokens, spread)
    window = logits.topk(PENALTY_WINDOW).indices.flip(0)
    expected = fish_inference.logits_to_probs(
        logits.clone(), torch.tensor(temperature), torch.tensor(top_p), torch.tensor(penalty), window
    )
    ours = penalised(logits[None], window[None], torch.tensor([[penalty]]))
    drawn = torch.cat(
        [
            sample(ours.expand(2000, -1), parameters(temperature, top_p, rows=2000), noise)
            for noise in uniform(DRAWS).view(-1, 2000)
        ]
    )
    counts = drawn.bincount(minlength=tokens).double()
    assert counts[expected == 0].sum() == 0, "a token was drawn that upstream never draws"
    often = expected * DRAWS >= 5
    seldom = (expected > 0) & ~often
    observed, wanted = counts[often].tolist(), (expected[often].double() * DRAWS).tolist()
    if seldom.any():
        observed.append(counts[seldom].sum().item())
        wanted.append(expected[seldom].double().sum().item() * DRAWS)
    scale = sum(observed) / sum(wanted)
    assert chisquare(observed, [value * scale for value in wanted]).pvalue > 1e-3


def test_a_row_gets_the_same_tokens_whatever_its_neighbours_need() -> None:
    sharp, flat = some_logits(4097, 5.0), some_logits(4097, 0.1, seed=1)
    noise = uniform(500)
    alone = [sample(sharp[None], parameters(0.7, 0.7), one[None]).item() for one in noise]
    beside = sample(
        torch.stack([sharp, flat]).repeat(500, 1), parameters(0.7, 0.7, rows=1000), noise.repeat_interleave(2)
    )
    assert flat.softmax(0).sort(descending=True).values[:LIKELY].sum() < 0.7, (
        "the neighbour should need more than the likeliest"
    )
    assert beside[::2].tolist() == alone


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-24])
def test_the_extremes_of_the_noise_select_the_first_and_the_last_kept_token(noise: float) -> None:
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    chosen = sample(logits, parameters(1.0, 0.75), torch.tensor([noise])).item()
    assert chosen == (1 if noise == 0 else 3)


def test_the_likeliest_token_is_kept_even_beyond_top_p() -> None:
    logits = torch.tensor([[0.1, 0.8, 0.1]]).log()
    assert sample(logits, parameters(1.0, 0.1), torch.tensor([0.99])).item() == 1


def test_repeated_tokens_are_penalised_once_each() -> None:
    logits = torch.tensor([[2.0, -2.0, 4.0, 1.0]])
    window = torch.tensor([[0, 1, 1, 0, 0]])
    assert penalised(logits, window, torch.tensor([[2.0]])).tolist() == [[1.0, -4.0, 4.0, 1.0]]


def test_a_token_of_the_last_ten_frames_is_drawn_again_and_an_older_one_is_not() -> None:
    logits = torch.zeros(3, 100)
    window = torch.full((3, PENALTY_WINDOW), -1)
    window[0, -10] = 7
    window[1, -11] = 7
    tokens = torch.tensor([7, 7, 7])
    again = resample_repeated(tokens, logits, window, torch.tensor([0.5, 0.5, 0.5]))
    assert again[0] != 7
    assert again[1:].tolist() == [7, 7]


def test_tokens_drawn_again_follow_the_distribution_of_the_higher_temperature() -> None:
    logits = some_logits(50, 2.0)
    expected = fish_inference.logits_to_probs(logits.clone(), torch.tensor(1.0), torch.tensor(0.9), torch.tensor(1.0))
    rows = 100_000
    drawn = resample_repeated(
        torch.full((rows,), 3), logits.expand(rows, -1), torch.full((rows, PENALTY_WINDOW), 3), uniform(rows)
    )
    kept = expected > 0
    counts, chances = drawn.bincount(minlength=50)[kept].double(), expected[kept].double()
    assert chisquare(counts, chances / chances.sum() * counts.sum()).pvalue > 1e-3
