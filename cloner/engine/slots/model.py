"""Text2Semantic for many segments at once: upstream's weights and arithmetic.

Logits are computed only for tokens that may be sampled: the semantic tokens and the end token in the slow transformer,
the codec's codes in the fast one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cloner.batch import CODEBOOK_SIZES
from cloner.engine.checkpoint import fish
from cloner.engine.slots.packed_linear import PackedLinear
from cloner.engine.slots.transformer import Stack, norm

CODEBOOKS = len(CODEBOOK_SIZES)
END = CODEBOOK_SIZES[0]
"""Index of the end token in the slow logits, behind the semantic tokens."""


class Model:
    """Weights and arithmetic. The caller owns the caches (`transformer.Attend`)."""

    def __init__(self, upstream: fish.Text2Semantic) -> None:
        """Takes the weights of upstream's model, which cannot be used afterwards."""
        config = upstream.config
        self.first_semantic: int = upstream.tokenizer.semantic_begin_id
        self.positions: int = config.max_seq_len
        self.slow = Stack(upstream.layers, upstream.freqs_cis)
        self.fast = Stack(upstream.fast_layers, upstream.fast_freqs_cis)
        self._eps: float = config.norm_eps
        self._norm: Tensor = upstream.norm.weight
        self._embeddings = upstream.embeddings.weight
        head = self._embeddings if config.tie_word_embeddings else upstream.output.weight
        end = fish.end_token(upstream)
        semantic = head[self.first_semantic : self.first_semantic + END]
        self._head = PackedLinear(torch.cat([semantic, head[end : end + 1]]))
        self._code_embeddings = upstream.codebook_embeddings.weight
        self._code_offsets = torch.arange(CODEBOOKS, device=head.device) * config.codebook_size
        self._frame_scale = 1 / math.sqrt(CODEBOOKS + 1) if config.scale_codebook_embeddings else 1.0
        fast_in = upstream.fast_project_in
        self._fast_in = PackedLinear.from_linears(fast_in) if isinstance(fast_in, torch.nn.Linear) else fast_in
        self._fast_embeddings = upstream.fast_embeddings.weight
        self._fast_norm = upstream.fast_norm.weight
        self._fast_head = PackedLinear(upstream.fast_output.weight[: CODEBOOK_SIZES[1]].clone())

    @property
    def device(self) -> torch.device:
        return self._norm.device

    @property
    def dtype(self) -> torch.dtype:
        return self._norm.dtype

    def embed(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Input ``[..., dim]`` of the slow transformer for `tokens` ``[...]`` with `codes` ``[..., codebooks]``. Codes
        are used for semantic tokens only: a frame is its token's embedding plus those of its ten codes."""
        frames = functional.embedding(codes + self._code_offsets, self._code_embeddings).sum(dim=-2)
        x = functional.embedding(tokens, self._embeddings)
        semantic = (tokens >= self.first_semantic) & (tokens < self.first_semantic + END)
        return torch.where(semantic[..., None], (x + frames) * self._frame_scale, x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Slow logits ``[..., 4097]`` in fp32: the semantic tokens, then the end token."""
        return self._head(norm(hidden, self._norm, self._eps)).float()

    def fast_start(self, hidden: Tensor) -> Tensor:
        """Input ``[..., fast_dim]`` of the fast transformer at its first position, from the slow one's `hidden`
        ``[..., dim]``."""
        projected: Tensor = self._fast_in(hidden)
        return projected

    def fast_embed(self, codes: Tensor) -> Tensor:
        """Input ``[..., fast_dim]`` of the fast transformer for the `codes` ``[...]`` of the codebook before."""
        return functional.embedding(codes, self._fast_embeddings)

    def fast_logits(self, x: Tensor) -> Tensor:
        """Fast logits ``[..., 1024]`` in fp32."""
        return self._fast_head(norm(x, self._fast_norm, self._eps)).float()
