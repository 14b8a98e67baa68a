"""Sampling of tokens, all rows at once.

Each row has its own random number for every draw, so its tokens do not depend on its neighbours. The rule is
upstream's (`logits_to_probs` of fish-speech 0.1.0): repetition penalty, then top-p on the untempered probabilities,
then temperature. Resampling of repeated tokens is that of fish-speech 2.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTY_WINDOW = 16
"""Frames that the repetition penalty looks back (upstream's `win_size`)."""

RESAMPLE_WINDOW = 10
RESAMPLE_TEMPERATURE = 1.0
RESAMPLE_TOP_P = 0.9
"""A first code that occurred in one of the last ten frames is drawn again at this temperature and top-p (upstream 2.0's
RAS_* constants)."""

LIKELY = 128
"""Tokens that a CPU ranks first: sorting all of them would take a third of a step."""


@dataclass(frozen=True)
class Sampling:
    """Each row's parameters, all ``[rows, 1]`` in fp32."""

    temperature: Tensor
    top_p: Tensor
    penalty: Tensor

    def rows(self, count: int) -> Sampling:
        """The parameters of the first `count` rows."""
        return Sampling(self.temperature[:count], self.top_p[:count], self.penalty[:count])


def penalised(logits: Tensor, window: Tensor, penalty: Tensor) -> Tensor:
    """`logits` ``[rows, tokens]`` with the tokens in `window` ``[rows, frames]`` made less likely."""
    scores = logits.gather(1, window)
    return logits.scatter(1, window, torch.where(scores < 0, scores * penalty, scores / penalty))


def sample(logits: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
    """One token a row from `logits` ``[rows, tokens]``, fp32; `noise` ``[rows]`` is uniform in 0..1.

    A token is kept while the cumulated probability, its own included, does not exceed `top_p`. The likeliest token is
    always kept.
    """
    ranked, order, cumulated = _ranked(logits, sampling.top_p)
    kept = cumulated <= sampling.top_p
    kept[:, 0] = True
    tempered = (ranked / sampling.temperature.clamp(min=1e-5)).masked_fill(~kept, -torch.inf)
    chances = (tempered - tempered[:, :1]).exp().cumsum(dim=-1)
    place = (chances <= noise[:, None] * chances[:, -1:]).sum(dim=-1, keepdim=True)
    # Rounding may place the noise behind the last kept token.
    place = torch.minimum(place, kept.sum(dim=-1, keepdim=True) - 1)
    return order.gather(1, place).squeeze(1)


def resample_repeated(tokens: Tensor, logits: Tensor, window: Tensor, noise: Tensor) -> Tensor:
    """`tokens` ``[rows]``, with those in the newest frames of `window` replaced by a draw from `logits` at
    `RESAMPLE_TEMPERATURE`."""
    repeated = (window[:, -RESAMPLE_WINDOW:] == tokens[:, None]).any(dim=-1)
    if logits.device.type == "cpu" and not repeated.any():  # on a GPU, the host would have to wait for the answer
        return tokens
    hot = Sampling(
        torch.full_like(logits[:, :1], RESAMPLE_TEMPERATURE),
        torch.full_like(logits[:, :1], RESAMPLE_TOP_P),
        torch.ones_like(logits[:, :1]),
    )
    return torch.where(repeated, sample(logits, hot, noise), tokens)


def _ranked(logits: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in descending order, their tokens, and cumulated probabilities, each ``[rows, ranked]``.

    On a CPU only the likeliest, if no row can keep more. Sums run from left to right in either case, so a row gets
    the same values whatever its neighbours need.
    """
    total = logits.logsumexp(dim=-1, keepdim=True)
    if logits.device.type == "cpu" and logits.shape[1] > LIKELY:
        ranked, order = logits.topk(LIKELY)
        cumulated = (ranked - total).exp().cumsum(dim=-1)
        if bool((cumulated[:, -1:] > top_p).all()):
            return ranked, order, cumulated
    ranked, order = logits.sort(dim=-1, descending=True)
    return ranked, order, (ranked - total).exp().cumsum(dim=-1)
