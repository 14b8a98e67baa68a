"""Sizes in a checkpoint's configuration, compared with its weights before a model is built: building takes time and
memory by the sizes, whatever the file of weights has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cloner.errors import LoadFailed
from cloner.validation import shown

SIZES = (
    "vocab_size",
    "n_layer",
    "n_head",
    "n_local_heads",
    "dim",
    "intermediate_size",
    "head_dim",
    "max_seq_len",
    "codebook_size",
    "num_codebooks",
)
FAST_SIZES = (
    "n_fast_layer",
    "fast_dim",
    "fast_n_head",
    "fast_n_local_heads",
    "fast_head_dim",
    "fast_intermediate_size",
)


def check_sizes(config: Any) -> None:
    """Raise `ValueError` unless all sizes of upstream's `DualARModelArgs`, or of its base, are whole numbers from 1."""
    for name in (*SIZES, *FAST_SIZES):
        value = getattr(config, name, 1)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {shown(value)}, and a whole number from 1 is needed")


def check_shapes(path: Path, config: Any, weights: Mapping[str, Tensor]) -> None:
    """Raise `LoadFailed` unless the numbers of layers, and the sizes of the first of each kind, are those of the
    weights. `path` is the configuration's."""
    for name, kind in (("n_layer", "layers"), ("n_fast_layer", "fast_layers")):
        found = _layers(weights, kind)
        if getattr(config, name) != found:
            _mismatch(path, f"{name} is {getattr(config, name)}", f"{found} layers")
    heads = config.n_head + 2 * config.n_local_heads
    fast_heads = config.fast_n_head + 2 * config.fast_n_local_heads
    expected = {
        "embeddings.weight": [config.vocab_size, config.dim],
        "codebook_embeddings.weight": [config.codebook_size * config.num_codebooks, config.dim],
        "layers.0.attention.wqkv.weight": [heads * config.head_dim, config.dim],
        "layers.0.attention.wo.weight": [config.dim, config.n_head * config.head_dim],
        "layers.0.feed_forward.w1.weight": [config.intermediate_size, config.dim],
        "fast_embeddings.weight": [config.codebook_size, config.fast_dim],
        "fast_layers.0.attention.wqkv.weight": [fast_heads * config.fast_head_dim, config.fast_dim],
        "fast_layers.0.attention.wo.weight": [config.fast_dim, config.fast_n_head * config.fast_head_dim],
        "fast_layers.0.feed_forward.w1.weight": [config.fast_intermediate_size, config.fast_dim],
    }
    for name, shape in expected.items():
        if name in weights and list(weights[name].shape) != shape:
            _mismatch(path, f"{name} has shape {shape}", f"shape {list(weights[name].shape)}")


def check_codec_sizes(sizes: Any, most_layers: float, name: str = "") -> None:
    """Raise `ValueError` unless all values are whole numbers: a hydra configuration with names could call any function.
    `most_layers` is the highest number of layers; `name` is the key of `sizes`."""
    if isinstance(sizes, dict):
        for key, value in sizes.items():
            check_codec_sizes(value, most_layers, key)
    elif isinstance(sizes, list):
        for value in sizes:
            check_codec_sizes(value, most_layers, name)
    elif type(sizes) is not int:
        raise ValueError(f"{sizes!r} is not a whole number")
    elif "layer" in name and sizes > most_layers:
        raise ValueError(f"{name} is {sizes}, and the file of weights has {most_layers} tensors")


def _layers(weights: Mapping[str, Tensor], kind: str) -> int:
    numbers = {match[1] for name in weights if (match := re.match(rf"{kind}\.(\d+)\.", name))}
    return len(numbers)


def _mismatch(path: Path, here: str, there: str) -> None:
    what = "the configuration of a fish-speech 0.1.0 model with the weights beside it (size mismatch)"
    raise LoadFailed(f"{path} is not {what}: {here} here, and {there} there")
