"""Weights as the GPU's decoding step wants them: few, large products, the norms folded into the products behind
them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cloner.batch import CODEBOOK_SIZES
from cloner.engine.kernels.step.layout import CODEBOOKS, END, AttentionWeights, EmbeddingTables, Heads
from cloner.errors import LoadFailed

CODES = CODEBOOK_SIZES[1]

HEAD_ROWS = END + 128
"""Rows of the slow output head: the semantic tokens, the end token, and zeros up to a multiple of 128."""


@dataclass(frozen=True)
class StackSizes:
    """Sizes of one transformer."""

    layers: int
    heads: Heads
    intermediate: int
    qk_norm: bool


@dataclass(frozen=True)
class ModelSizes:
    """Sizes on which compiled kernels depend."""

    dim: int
    vocabulary: int
    positions: int
    codebook_size: int
    slow: StackSizes
    fast: StackSizes

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> ModelSizes:
        """From a checkpoint's ``config.json``, with fish-speech's defaults for what the fast transformer lacks."""

        def stack(prefix: str, layers: str) -> StackSizes:
            def size(name: str) -> int:
                return int(config.get(prefix + name, config[name]))

            heads = Heads(size("n_head"), size("n_local_heads"), size("head_dim"))
            qk_norm = bool(config.get(f"{prefix}attention_qk_norm", config["attention_qk_norm"]))
            return StackSizes(config[layers], heads, size("intermediate_size"), qk_norm)

        return cls(
            dim=config["dim"],
            vocabulary=config["vocab_size"],
            positions=config["max_seq_len"],
            codebook_size=config["codebook_size"],
            slow=stack("", "n_layer"),
            fast=stack("fast_", "n_fast_layer"),
        )


@dataclass(frozen=True)
class LayerWeights:
    """One layer: `qkv` ``[qkv_width, dim]``, `out` ``[dim, heads * head_dim]``, `gate_up` ``[2 * intermediate, dim]``,
    `down` ``[dim, intermediate]``. The norms before attention and feed-forward are folded into `qkv` and `gate_up`."""

    attention: AttentionWeights
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class StepWeights:
    """Both transformers. `head` ``[HEAD_ROWS, dim]`` and `fast_head` ``[1024, dim]`` have the last norms folded in."""

    embeddings: EmbeddingTables
    slow: list[LayerWeights]
    head: Tensor
    fast_embeddings: Tensor
    fast: list[LayerWeights]
    fast_head: Tensor
    eps: float

    @property
    def dim(self) -> int:
        return self.head.shape[1]

    @property
    def positions(self) -> int:
        return self.slow[0].attention.rotation.shape[0]

    @classmethod
    def take(cls, upstream: Any, end_token: int) -> StepWeights:
        """Take over the weights of upstream's model, which loses them layer by layer, so that they are not in memory
        twice. Raises `LoadFailed` for a model that the kernels do not cover."""
        config = upstream.config
        _check(upstream)
        first = upstream.tokenizer.semantic_begin_id
        head = upstream.embeddings.weight if config.tie_word_embeddings else upstream.output.weight
        rows = head.new_zeros(HEAD_ROWS, head.shape[1])
        rows[:END] = folded(head[first : first + END], upstream.norm.weight)
        rows[END] = folded(head[end_token], upstream.norm.weight)
        if not config.tie_word_embeddings:
            upstream.output.weight = None
        fast_head = folded(upstream.fast_output.weight[:CODES], upstream.fast_norm.weight)
        return cls(
            embeddings=EmbeddingTables(
                upstream.embeddings.weight,
                upstream.codebook_embeddings.weight,
                first,
                config.codebook_size,
                1 / math.sqrt(CODEBOOKS + 1) if config.scale_codebook_embeddings else 1.0,
            ),
            slow=_take_layers(upstream.layers, upstream.freqs_cis, config.norm_eps),
            head=rows,
            fast_embeddings=upstream.fast_embeddings.weight,
            fast=_take_layers(upstream.fast_layers, upstream.fast_freqs_cis, config.norm_eps),
            fast_head=fast_head,
            eps=config.norm_eps,
        )

    @classmethod
    def empty(cls, sizes: ModelSizes, device: torch.device, dtype: torch.dtype) -> StepWeights:
        """Weights of these sizes without values: on the ``meta`` device for compiling kernels ahead."""

        def make(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        def stack(size: StackSizes, positions: int) -> list[LayerWeights]:
            heads, dim = size.heads, sizes.dim
            rotation = torch.empty(positions, heads.head_dim // 2, 2, device=device)
            norm = make(heads.heads + heads.kv_heads, heads.head_dim) if size.qk_norm else None
            return [
                LayerWeights(
                    AttentionWeights(heads, norm, rotation, 1e-6),
                    make(heads.qkv_width, dim),
                    make(dim, heads.heads * heads.head_dim),
                    make(2 * size.intermediate, dim),
                    make(dim, size.intermediate),
                )
                for _ in range(size.layers)
            ]

        tables = EmbeddingTables(
            make(sizes.vocabulary, sizes.dim),
            make(CODEBOOKS * sizes.codebook_size, sizes.dim),
            sizes.vocabulary - END,
            sizes.codebook_size,
            1.0,
        )
        return cls(
            tables,
            stack(sizes.slow, sizes.positions),
            make(HEAD_ROWS, sizes.dim),
            make(sizes.codebook_size, sizes.dim),
            stack(sizes.fast, CODEBOOKS),
            make(CODES, sizes.dim),
            1e-6,
        )


def folded(weight: Tensor, norm: Tensor) -> Tensor:
    """A product's weight behind a norm with weight `norm`: ``w[n, k] * norm[k]``, rounded once."""
    return (weight.float() * norm.float()).to(weight.dtype).contiguous()


def _take_layers(blocks: Any, frequencies: Tensor, eps: float) -> list[LayerWeights]:
    rotation = frequencies.float().contiguous()
    return [_take_layer(block, rotation, eps) for block in blocks]


def _take_layer(block: Any, rotation: Tensor, eps: float) -> LayerWeights:
    attention, ffn = block.attention, block.feed_forward
    heads = Heads(attention.n_head, attention.n_local_heads, attention.head_dim)
    qk_norm = None
    if attention.attention_qk_norm:
        norms = (attention.q_norm.weight.expand(heads.heads, -1), attention.k_norm.weight.expand(heads.kv_heads, -1))
        qk_norm = torch.cat(norms)
    layer = LayerWeights(
        AttentionWeights(heads, qk_norm, rotation, eps),
        folded(attention.wqkv.weight, block.attention_norm.weight),
        attention.wo.weight.contiguous(),
        folded(torch.cat([ffn.w1.weight, ffn.w3.weight]), block.ffn_norm.weight),
        ffn.w2.weight.contiguous(),
    )
    for linear in (attention.wqkv, attention.wo, ffn.w1, ffn.w3, ffn.w2):
        linear.weight = None
    return layer


def _check(upstream: Any) -> None:
    blocks = [*upstream.layers, *upstream.fast_layers]
    linears = [(block.attention.wqkv, block.attention.wo, block.feed_forward.w2) for block in blocks]
    if any(linear.bias is not None for some in linears for linear in some):
        raise LoadFailed("this model's attention or feed-forward has biases, and the GPU's kernels know none")
    if not isinstance(upstream.fast_project_in, torch.nn.Identity):
        raise LoadFailed(
            "this model's two transformers have different sizes (fast_dim), and the GPU's kernels want one"
        )
