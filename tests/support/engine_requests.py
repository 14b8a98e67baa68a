"""Voices and lines for the tests of engines, and a decoder without a codec."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloner.batch import Generation
from cloner.engine import fish
from cloner.engine.base import SpeechRequest, Voice
from cloner.engine.cache import Cache
from cloner.engine.decoder import Decoder
from cloner.engine.model import Model
from cloner.engine.packed_linear import PackedLinear
from cloner.engine.prefix_cache import PrefixCache
from cloner.engine.prompt import Prompts
from cloner.engine.scheduler import Scheduler, SegmentCodes
from cloner.engine.stepper import Stepper

CPU = torch.device("cpu")

LONG_TEXT = "A text that is long enough for its limit of frames to be the guess."


@dataclass
class Until:
    """A watch that stops when it `holds`, and knows what was taken in hand."""

    holds: Callable[[], bool] = lambda: False
    hand: list[int] = field(default_factory=list)

    def started(self, segment: int) -> None:
        self.hand.append(segment)

    def stopped(self) -> bool:
        return self.holds()


def make_voice(seed: int, frames: int = 20) -> Voice:
    codes = np.random.default_rng(seed).integers(0, 1024, (10, frames), dtype=np.int32)
    return Voice(codes, "What the reference says.")


def make_line(voice: Voice, segment: int = 0, text: str = "Hello.", seed: int = 0, **generation: Any) -> SpeechRequest:
    most = generation.setdefault("max_new_tokens", 12)
    return SpeechRequest(segment, text, voice, Generation(**{"min_new_tokens": min(12, most), **generation}), seed)


def frames_line(voice: Voice, segment: int, frames: int, text: str = LONG_TEXT, **generation: Any) -> SpeechRequest:
    """A line of exactly so many frames."""
    return make_line(voice, segment, text, seed=segment, max_new_tokens=frames, min_new_tokens=frames, **generation)


def greedy(line: SpeechRequest) -> SpeechRequest:
    """The line, to be spoken with the likeliest tokens alone."""
    return replace(line, generation=line.generation.model_copy(update={"top_p": 1e-6, "repetition_penalty": 1.0}))


def make_scheduler(
    checkpoint: Path,
    slots: int,
    *,
    positions: int = 512,
    deterministic: bool = False,
    resampling: bool = True,
    prefix_bytes: int = 10**8,
) -> Scheduler:
    """What the batched engine is made of, on the CPU in fp32, without a codec."""
    with torch.inference_mode():
        upstream = fish.load_text2semantic(checkpoint, CPU, torch.float32)
        model = Model(upstream)
        cache = Cache(model.slow, slots * positions, torch.float32, CPU)
        cache.shape(positions)
        decoder = Decoder(model, cache, slots, 1024, resampling=resampling)
    prompts = Prompts(upstream.tokenizer, model.positions)
    return Scheduler(
        decoder,
        Stepper(decoder, slots, deterministic=deterministic),
        prompts,
        PrefixCache(decoder, prompts, prefix_bytes),
        positions,
        1024,
        deterministic,
    )


def codes_of(scheduler: Scheduler, lines: Iterable[SpeechRequest]) -> dict[int, np.ndarray[Any, Any]]:
    """Codes ``[codebooks, frames]`` of each segment."""
    answers = list(scheduler.run(lines))
    assert all(isinstance(answer, SegmentCodes) for answer in answers), answers
    return {answer.line.segment: answer.codes.numpy() for answer in answers if isinstance(answer, SegmentCodes)}


def weight_of(product: PackedLinear) -> Tensor:
    """A copy of a product's weight ``[outputs, inputs]``, laid out as usual."""
    weight = product._weight
    return weight.to_dense() if weight.is_mkldnn else weight.clone()
