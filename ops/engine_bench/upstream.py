"""fish-speech 0.1.0 unchanged: its own loading, its `generate_long`, its codec, one text at a time."""

from __future__ import annotations

import importlib.resources
import time
import warnings
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from fish_speech.models.text2semantic import inference
from omegaconf import OmegaConf
from torch import Tensor

from cloner.engine.base import SpeechRequest
from cloner.engine.checkpoint import fish, fish_inference
from cloner.engine.checkpoint.files import CODEC_SIZES, CODEC_WEIGHTS
from ops.engine_bench.workload import wait_for


def load_model(directory: Path, device: torch.device, precision: torch.dtype) -> fish.Text2Semantic:
    """Text2Semantic by upstream's `init_model`, with its caches."""
    model, _decode = inference.init_model(directory, device, precision)
    return model


def load_codec(directory: Path, device: torch.device) -> fish.Codec:
    """The codec as `fish_speech.models.dac.inference.load_model` builds it: random weights, then those of the file.

    That module itself cannot be imported from an installed fish-speech.
    """
    config = OmegaConf.load(str(importlib.resources.files("fish_speech") / "configs" / "modded_dac_vq.yaml"))
    if (directory / CODEC_SIZES).exists():
        config = OmegaConf.merge(config, OmegaConf.load(directory / CODEC_SIZES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it normalises weights in a way that torch advises against
        codec = hydra.utils.instantiate(config)
    weights = torch.load(directory / CODEC_WEIGHTS, map_location=device, mmap=True, weights_only=True)
    codec.load_state_dict(weights, strict=False, assign=True)
    return codec.eval().to(device)


def speak(model: fish.Text2Semantic, request: SpeechRequest) -> tuple[Tensor, float]:
    """Codes ``[codebooks, frames]`` of one request, and the seconds for the frames after the first, which belongs to
    reading the prompt."""
    began: list[float] = []

    device = next(model.parameters()).device

    def decode_one_token(**arguments: Any) -> Tensor:
        if not began:
            wait_for(device)
            began.append(time.perf_counter())
        frame: Tensor = fish_inference.decode_one_token(**arguments)
        return frame

    _suppress_end(model)
    responses = fish_inference.generate_long(
        model=model,
        device=device,
        decode_one_token=decode_one_token,
        text=request.text,
        max_new_tokens=request.generation.max_new_tokens + 1,  # it drops the last one, as if it were the end token
        temperature=request.generation.temperature,
        top_p=request.generation.top_p,
        repetition_penalty=request.generation.repetition_penalty,
        prompt_text=request.voice.text,
        prompt_tokens=torch.tensor(request.voice.codes),
    )
    codes: Tensor = next(responses).codes
    wait_for(device)
    return codes, time.perf_counter() - began[0]


def decoding_rate(model: fish.Text2Semantic, request: SpeechRequest) -> float:
    """Frames a second of one request, without its prompt."""
    codes, seconds = speak(model, request)
    return codes.shape[1] / seconds  # the first came with the prompt, and one more was decoded and dropped


@torch.inference_mode()
def decode(codec: fish.Codec, codes: Tensor) -> Tensor:
    """Audio ``[samples]``."""
    device = next(codec.parameters()).device
    decoded, _lengths = codec.decode(codes[None].long().to(device), torch.tensor([codes.shape[1]], device=device))
    audio: Tensor = decoded[0, 0].cpu()
    return audio


def _suppress_end(model: fish.Text2Semantic) -> None:
    """Suppress the end token, so that every segment reaches its maximum length."""
    if "forward_generate" in vars(model):
        return
    forward, end = model.forward_generate, fish.end_token(model)

    def without_end(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        result.logits[..., end] = -torch.inf
        return result

    model.forward_generate = without_end
