"""Sizes of checkpoints with random weights. Published benchmarks refer to them, so they must not change."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from enum import StrEnum
from typing import Any


class Preset(StrEnum):
    """Sizes for tests, for trials on a CPU, and of the published model."""

    TINY = "tiny"
    SMALL = "small"
    S1_MINI = "s1-mini"


_S1 = {
    "model_type": "dual_ar",
    "codebook_size": 4096,
    "num_codebooks": 10,
    "attention_qk_norm": True,
    "rope_base": 1_000_000,
    "norm_eps": 1e-6,
}
_SPECIAL_TOKENS = 15 + 4096
_BYTES = {"vocab_size": 256 + _SPECIAL_TOKENS, "max_seq_len": 4096, "tie_word_embeddings": True}

CONFIGS: dict[Preset, dict[str, Any]] = {
    Preset.TINY: {
        **_S1,
        **_BYTES,
        "dim": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_local_heads": 2,
        "head_dim": 16,
        "intermediate_size": 128,
        "n_fast_layer": 1,
    },
    Preset.SMALL: {
        **_S1,
        **_BYTES,
        "dim": 256,
        "n_layer": 6,
        "n_head": 8,
        "n_local_heads": 4,
        "head_dim": 32,
        "intermediate_size": 768,
        "n_fast_layer": 2,
    },
    Preset.S1_MINI: {
        **_S1,
        "vocab_size": 155_776,
        "max_seq_len": 8192,
        "tie_word_embeddings": False,
        "dim": 1024,
        "n_layer": 28,
        "n_head": 16,
        "n_local_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "n_fast_layer": 4,
        "fast_dim": 1024,
        "fast_n_head": 16,
        "fast_n_local_heads": 8,
        "fast_head_dim": 64,
        "fast_intermediate_size": 3072,
        "fast_attention_qk_norm": False,
    },
}
"""``config.json`` of each size; other values are fish-speech's defaults."""

_NARROW = {"input_dim": 64, "config": {"n_layer": 1, "n_head": 1, "dim": 64, "intermediate_size": 192}}

SMALL_CODEC: dict[str, Any] = {
    "encoder_dim": 4,
    "decoder_dim": 64,
    "encoder_transformer_layers": [0, 0, 0, 1],
    "decoder_transformer_layers": [1, 0, 0, 0],
    "quantizer": {"input_dim": 64, "pre_module": _NARROW, "post_module": _NARROW},
}
"""The sizes in which the codec of `TINY` and `SMALL` differs from upstream's; `S1_MINI` has upstream's."""


def vocabulary(preset: Preset) -> Iterator[bytes]:
    """The tokens of a size's tokenizer by rank: all single bytes, then byte pairs, then triples, until it is full."""
    words = (bytes(word) for length in (1, 2, 3) for word in itertools.product(range(256), repeat=length))
    return itertools.islice(words, CONFIGS[preset]["vocab_size"] - _SPECIAL_TOKENS)
