"""fish-speech 0.1.0, loaded from a checkpoint folder. Only this module and `fish_inference.py` import it.

It takes seconds to import, so other modules import this one lazily.

Upstream's loaders fill every weight with random numbers and then overwrite it. Here the models are built on
torch's ``meta`` device, which allocates nothing, and take the tensors of the file as they are.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.utils import parametrize

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE, Codes
from cloner.batch import CODEBOOK_SIZES
from cloner.engine.checkpoint.config_sizes import check_codec_sizes, check_shapes, check_sizes
from cloner.engine.checkpoint.files import CODEC_SIZES, CODEC_WEIGHTS, CONFIG, MODEL_WEIGHTS, SPECIAL_TOKENS, TOKENIZER
from cloner.engine.checkpoint.fish_imports import importing_fish_speech, no_warnings
from cloner.engine.checkpoint.weights import load_weights, place, read_weights, reading, without_weights
from cloner.errors import LoadFailed

with importing_fish_speech():
    import hydra.utils
    from fish_speech.content_sequence import ContentSequence, TextPart, VQPart
    from fish_speech.models.dac import modded_dac
    from fish_speech.models.text2semantic import llama
    from fish_speech.tokenizer import (
        ALL_SPECIAL_TOKENS,
        IM_END_TOKEN,
        SEMANTIC_TOKEN_TEMPLATE,
        SEMANTIC_TOKENS,
        TIKTOKEN_MAX_ENCODE_CHARS,
        FishTokenizer,
    )

Text2Semantic: TypeAlias = Any
"""Upstream's `DualARTransformer`, which has no types: sizes in `.config`, its tokenizer in `.tokenizer`."""

Codec: TypeAlias = Any
"""Upstream's `DAC`, which has no types."""

Tokenizer: TypeAlias = Any
"""Upstream's `FishTokenizer`, which has no types."""


class CodecPart(Enum):
    """Which part of the codec is loaded. A part computes the same as the whole, faster."""

    WHOLE = "whole"
    ENCODER = "encoder"
    DECODER = "decoder"


REBUILT = ("causal_mask", "freqs_cis")
"""Last names of the codec's buffers that follow from its sizes: not read from ``codec.pth``, not written to it."""

MAX_POSITIONS = 65_536
"""Eight times those of S1-mini. Tables of this length are made when a model is loaded."""


class CausalMask:
    """Upstream's table of the positions to which each position attends, computed where it is read: that of 65,536
    positions takes 4 GiB, and as much again while it is made."""

    def __init__(self, positions: int) -> None:
        self._positions = positions

    def __getitem__(self, index: tuple[Any, ...]) -> Tensor:
        """``[1, 1, queries, keys]`` for an index ``[None, None, queries, keys]``, as upstream writes it."""
        _, _, rows, columns = index
        queries = rows if isinstance(rows, Tensor) else torch.arange(self._positions)[rows]
        keys = torch.arange(self._positions, device=queries.device)[columns]
        return (keys <= queries[:, None])[None, None]


def load_text2semantic(directory: Path, device: torch.device, precision: torch.dtype) -> Text2Semantic:
    """Text2Semantic of the checkpoint in `directory`, ready to generate.

    Raises `LoadFailed`, or torch's `OutOfMemoryError` if it does not fit on `device`.
    """
    path = directory / MODEL_WEIGHTS
    weights = read_weights(path, prefix="model.")
    model = build_text2semantic(directory, weights)
    load_weights(model, path, weights)
    config = model.config
    model.freqs_cis = llama.precompute_freqs_cis(config.max_seq_len, config.head_dim, config.rope_base)
    model.fast_freqs_cis = llama.precompute_freqs_cis(config.num_codebooks, config.fast_head_dim, config.rope_base)
    del model.causal_mask
    model.causal_mask = CausalMask(config.max_seq_len)
    return place(model, device, precision)


def load_codec(directory: Path, device: torch.device, part: CodecPart = CodecPart.WHOLE) -> Codec:
    """The codec of the checkpoint in `directory`, or a `part` of it, in fp32 as in upstream, ready to run.

    Raises `LoadFailed`, or torch's `OutOfMemoryError` if it does not fit on `device`.
    """
    path = directory / CODEC_WEIGHTS
    weights = read_weights(path, prefix="generator.")
    codec = build_codec(directory, weights)
    if part is CodecPart.DECODER:
        codec.encoder = codec.quantizer.downsample = codec.quantizer.pre_module = None
    elif part is CodecPart.ENCODER:
        # While it encodes, upstream also computes the quantized latents, and discards them.
        codec.quantizer.post_module = codec.quantizer.upsample = torch.nn.Identity()
        codec.decoder = None
    load_weights(codec, path, weights, rebuilt=REBUILT)
    for module in codec.modules():
        if isinstance(module, modded_dac.Transformer):
            config = module.config
            module.freqs_cis = modded_dac.precompute_freqs_cis(config.block_size, config.head_dim, config.rope_base)
            module.causal_mask = None  # up to 256 MiB, and never read: each call passes a mask of its window
    codec = place(codec, device, torch.float32)
    if part is not CodecPart.WHOLE:
        _bake(codec, device)
    return codec


def _bake(codec: Codec, device: torch.device) -> None:
    """Compute once what upstream computes at each call: normalised weights, and the masks of attention windows.

    The activation function, a fifth to a half of the time on a CPU, takes four passes over the samples instead of six.
    """
    for module in codec.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        elif hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)
        if isinstance(module, modded_dac.Snake1d):
            module.forward = partial(_snake, module, (module.alpha + 1e-9).reciprocal())
        if isinstance(module, modded_dac.WindowLimitedTransformer):
            module.make_window_limited_mask = _cached_mask(module.make_window_limited_mask, device)
    codec.requires_grad_(False)  # removing a parametrization makes the weight trainable


def _snake(module: Any, reciprocal: Tensor, x: Tensor) -> Tensor:
    """Upstream's `Snake1d`: x + sin(alpha x)^2 / alpha, on ``[rows, channels, samples]``."""
    wave = (x * module.alpha).sin_()
    return torch.addcmul(x, wave.square_(), reciprocal.type_as(x))


def _cached_mask(make: Callable[[int], Tensor], device: torch.device) -> Callable[..., Tensor]:
    """`make`, which returns ``[1, 1, length, length]``, but caching the longest mask: a shorter one is its corner."""
    cached = torch.zeros(1, 1, 0, 0, dtype=torch.bool)

    def mask(length: int, _lengths: Tensor | None = None) -> Tensor:
        nonlocal cached
        if cached.shape[-1] < length:
            cached = make(length).to(device)
        return cached[..., :length, :length]

    return mask


def build_text2semantic(directory: Path, weights: Mapping[str, Tensor] | None = None) -> Text2Semantic:
    """Text2Semantic as `directory` describes it, without weights (on the ``meta`` device). Raises `LoadFailed`.

    The sizes must be those of the `weights` of its file, where they are known.

    As in upstream, the ids of special tokens follow from their order in ``special_tokens.json``, behind the
    vocabulary; the ids in that file are ignored.
    """
    path = directory / CONFIG
    with reading(path, "the configuration of a fish-speech 0.1.0 model"):
        config = llama.BaseModelArgs.from_pretrained(str(path))
        check_sizes(config)
    if config.model_type != "dual_ar":
        raise LoadFailed(f"{path} has model_type {config.model_type!r}; only 'dual_ar' (OpenAudio S1) can be loaded")
    if config.num_codebooks != len(CODEBOOK_SIZES) or config.codebook_size < max(CODEBOOK_SIZES):
        raise LoadFailed(
            f"{path} has {config.num_codebooks} codebooks of {config.codebook_size}; the codec has"
            f" {len(CODEBOOK_SIZES)}, of up to {max(CODEBOOK_SIZES)}"
        )
    if not 1 <= config.max_seq_len <= MAX_POSITIONS:
        raise LoadFailed(f"{path} has a max_seq_len of {config.max_seq_len}; 1 to {MAX_POSITIONS} can be loaded")
    tokenizer = _read_tokenizer(directory)
    tokens = tokenizer.vocab_size + tokenizer.num_special_tokens
    if tokens > config.vocab_size:
        raise LoadFailed(
            f"{TOKENIZER} and {SPECIAL_TOKENS} in {directory} make {tokens} tokens, and {CONFIG} has a vocab_size"
            f" of {config.vocab_size}: take all files from one checkpoint"
        )
    if weights is not None:
        check_shapes(path, config, weights)
    with reading(path, "the configuration of a fish-speech 0.1.0 model"), without_weights():
        return llama.DualARTransformer(config, tokenizer=tokenizer)


def build_codec(directory: Path, weights: Mapping[str, Tensor] | None = None) -> Codec:
    """The codec of `directory`, without weights (on the ``meta`` device). Raises `LoadFailed`.

    Its configuration is upstream's packaged ``modded_dac_vq.yaml``; ``codec.json``, if present, replaces its sizes.
    It has no more layers than the `weights` of its file, where they are known.
    """
    packaged = importlib.resources.files("fish_speech") / "configs" / "modded_dac_vq.yaml"
    config = OmegaConf.load(str(packaged))
    OmegaConf.set_struct(config, True)
    path = directory / CODEC_SIZES
    if path.is_file():
        with reading(path, "sizes of a codec"):
            sizes = json.loads(path.read_text(encoding="utf-8"))
            check_codec_sizes(sizes, math.inf if weights is None else len(weights))
            config = OmegaConf.merge(config, sizes)
    with reading(path, "sizes of a codec"), no_warnings(), without_weights():
        codec = hydra.utils.instantiate(config)
    return _checked_codec(codec, path)


def special_tokens() -> list[str]:
    """fish-speech's special tokens in their order, with as many semantic ones as the codec has semantic codes."""
    others = [token for token in ALL_SPECIAL_TOKENS if token not in SEMANTIC_TOKENS]
    return others + [SEMANTIC_TOKEN_TEMPLATE.format(i=i) for i in range(CODEBOOK_SIZES[0])]


def end_token(model: Text2Semantic) -> int:
    """Id of ``<|im_end|>``, which ends a segment."""
    return int(model.tokenizer.get_token_id(IM_END_TOKEN))


def reference_prompt(tokenizer: Tokenizer, text: str, codes: Codes) -> Tensor:
    """A prompt up to the text to be spoken, ``[1 + codebooks, tokens]``, as `generate_long` makes it."""
    sequence = ContentSequence(modality="interleave")
    parts = [TextPart(text=text), VQPart(codes=torch.tensor(codes))]
    sequence.append(parts, add_end=True, speaker=0)
    sequence.append([], speaker=0)
    values: Tensor = sequence.encode_for_inference(tokenizer, num_codebooks=len(codes))[0]
    return values


def text_prompt(tokenizer: Tokenizer, text: str) -> Tensor:
    """The rest of a prompt: the text to be spoken, ``[1 + codebooks, tokens]``."""
    sequence = ContentSequence([TextPart(text=text)])
    values: Tensor = sequence.encode_for_inference(tokenizer, num_codebooks=len(CODEBOOK_SIZES))[0]
    return values


def codec_frames(codec: Codec) -> int:
    """Maximum number of frames of one segment: the positions of the codec's smallest transformer."""
    transformers = [part for part in codec.quantizer.modules() if isinstance(part, modded_dac.Transformer)]
    return min(int(transformer.config.block_size) for transformer in transformers)


def _read_tokenizer(directory: Path) -> Any:
    with reading(directory / TOKENIZER, f"a tokenizer, or {SPECIAL_TOKENS} beside it as its special tokens"):
        tokenizer = FishTokenizer.from_pretrained(str(directory))
        semantic = tokenizer.semantic_end_id - tokenizer.semantic_begin_id + 1
        if semantic != CODEBOOK_SIZES[0] or len(tokenizer.semantic_id_to_token_id) != semantic:
            raise LoadFailed(
                f"{directory / SPECIAL_TOKENS} has {len(tokenizer.semantic_id_to_token_id)} semantic tokens;"
                f" the codec needs {CODEBOOK_SIZES[0]}, one after another"
            )
        tokenizer.get_token_id(IM_END_TOKEN)
        special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens_with_ids)))
        tokenizer.encode = partial(_encode, tokenizer.tkt_model, special)
        return tokenizer


def _encode(encoding: Any, special: re.Pattern[str], text: str) -> list[int]:
    """The tokens of a text, as upstream's `FishTokenizer.encode` makes them; `special` finds special tokens.

    Upstream's starts and ends a pool of threads for each text, and hands over all 1,039 special tokens: with both, a
    text takes 2 ms, nearly as long as a step of 64 segments.
    """
    tokens: list[int] = []
    for at in range(0, len(text), TIKTOKEN_MAX_ENCODE_CHARS):
        piece = text[at : at + TIKTOKEN_MAX_ENCODE_CHARS]
        tokens += encoding.encode(piece, allowed_special=set(special.findall(piece)), disallowed_special=())
    return tokens


def _checked_codec(codec: Codec, path: Path) -> Codec:
    quantizer = codec.quantizer
    sizes = (
        quantizer.semantic_quantizer.codebook_size,
        *[quantizer.quantizer.codebook_size] * quantizer.quantizer.n_codebooks,
    )
    found = (sizes, codec.sample_rate, int(codec.frame_length))
    if found != (CODEBOOK_SIZES, SAMPLE_RATE, FRAME_SAMPLES):
        raise LoadFailed(f"{path} describes a codec of another kind (codebooks, Hz, samples a frame: {found})")
    return codec
