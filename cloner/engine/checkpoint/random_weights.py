"""Random weights for models that were never trained, but whose segments end and are audible.

With unscaled random weights, one token repeats without end, or the end comes at once, and the codec's output is too
quiet or clips. The scales below keep sampling varied at the default parameters, let a segment end by itself after some
seconds (one frame in 50 to 100 is its last), and give the codec's output the loudness of speech (-19 to -23 dBFS).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.files import CODEC_WEIGHTS, MODEL_WEIGHTS

LOGIT_SPREAD = 3.0
"""Standard deviation of logits: 40 of 4,096 tokens hold 70% of the probability, enough for top-p to choose from."""

FRAME_SCALE = 2.0
"""RMS of a frame's ten codebook embeddings together, so that its own token's embedding does not drown the rest."""

END_LOGIT = 19.0
"""Logit of the end token after a frame, multiplied by the RMS of the residual stream there (about 2.1)."""

WRITES_TO_STREAM = ("wo.weight", "w2.weight")
"""Last names of the weights through which a layer adds to the residual stream."""

RESIDUAL_GAIN, OUTPUT_GAIN = 0.3, 0.15
"""Weight-norm gains in the codec: of each residual unit's last convolution, and of the last convolution of all."""


def write(directory: Path, seed: int) -> None:
    """Write weights for the configuration in `directory` into it."""
    torch.save(text2semantic_weights(fish.build_text2semantic(directory), seed), directory / MODEL_WEIGHTS)
    torch.save(codec_weights(fish.build_codec(directory), seed), directory / CODEC_WEIGHTS)


def text2semantic_weights(model: fish.Text2Semantic, seed: int) -> dict[str, Tensor]:
    """Weights for a model on the ``meta`` device, in bfloat16 as upstream publishes them; `seed` decides them."""
    random = torch.Generator().manual_seed(seed)
    config = model.config
    scales = {
        "embeddings.weight": LOGIT_SPREAD / math.sqrt(config.dim),
        "output.weight": LOGIT_SPREAD / math.sqrt(config.dim),
        "fast_output.weight": LOGIT_SPREAD / math.sqrt(config.fast_dim),
        "codebook_embeddings.weight": FRAME_SCALE / math.sqrt(config.num_codebooks),
        "fast_embeddings.weight": 1.0,
    }
    weights = {}
    for name, like in model.state_dict().items():
        if like.dim() == 1:  # norms
            weight = torch.ones(like.shape)
        else:
            weight = torch.randn(like.shape, generator=random) * scales.get(name, 1 / math.sqrt(like.shape[1]))
        if name.endswith(WRITES_TO_STREAM):  # the more layers write, the smaller each contribution
            weight /= math.sqrt(config.n_layer)
        weights[name] = weight.to(torch.bfloat16)
    _let_segments_end(weights, model)
    return weights


def _let_segments_end(weights: dict[str, Tensor], model: fish.Text2Semantic) -> None:
    """Reserve the first channel of the residual stream for the end token.

    The channel holds 1 after a frame and 0 after text, and no layer writes to it; only the end token's logit
    reads it.
    """
    begin, end = model.tokenizer.semantic_begin_id, model.tokenizer.semantic_end_id + 1
    embeddings = weights["embeddings.weight"]
    embeddings[:, 0] = 0
    embeddings[begin:end, 0] = 1
    weights["codebook_embeddings.weight"][:, 0] = 0
    for name, weight in weights.items():
        if name.startswith("layers.") and name.endswith(WRITES_TO_STREAM):
            weight[0] = 0
    head = embeddings
    if "output.weight" in weights:
        head = weights["output.weight"]
        head[:, 0] = 0
    head[:begin] /= 10  # a text token among the frames is rare
    head[fish.end_token(model)] = 0
    head[fish.end_token(model), 0] = END_LOGIT


def codec_weights(codec: fish.Codec, seed: int) -> dict[str, Tensor]:
    """Weights for a codec on the ``meta`` device, fp32, without the buffers that its sizes determine."""
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in codec.state_dict().items():
        if name.endswith(fish.REBUILT):
            continue
        if name.endswith("bias"):
            weights[name] = torch.zeros(like.shape)
        elif name.endswith(("original0", "weight_g")):
            weights[name] = torch.full(like.shape, _gain(name, like))
        elif name.endswith("alpha") or like.dim() == 1:
            weights[name] = torch.ones(like.shape)
        elif name.endswith("codebook.weight"):
            weights[name] = torch.randn(like.shape, generator=random)
        else:
            weights[name] = torch.randn(like.shape, generator=random) / math.sqrt(like[0].numel())
    return weights


def _gain(name: str, like: Tensor) -> float:
    if name.endswith("block.3.conv.parametrizations.weight.original0"):
        return RESIDUAL_GAIN
    return OUTPUT_GAIN if like.numel() == 1 else 1.0
