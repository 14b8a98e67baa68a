"""Voices and requests for the tests of engines, and a scheduler without a codec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloner.batch import Generation
from cloner.engine.base import SegmentAudio, SpeechRequest, Voice
from cloner.engine.batched import BatchedEngine
from cloner.engine.checkpoint import fish
from cloner.engine.prompt import PromptBuilder
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slots.cache import KVCache
from cloner.engine.slots.decoder import Decoder
from cloner.engine.slots.model import Model
from cloner.engine.slots.packed_linear import PackedLinear
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.engine.slots.step_runner import StepRunner

CPU = torch.device("cpu")

LONG_TEXT = "A text that is long enough for its limit of frames to be the estimate."


@dataclass
class StopWhen:
    """An observer that stops the chunk when `condition` returns True, and records the segments that were started."""

    condition: Callable[[], bool] = lambda: False
    started_segments: list[int] = field(default_factory=list)
    unwanted: frozenset[int] = frozenset()
    """Segments that it drops."""

    def started(self, segment: int) -> None:
        self.started_segments.append(segment)

    def stopped(self) -> bool:
        return self.condition()

    def dropped(self, segment: int) -> bool:
        return segment in self.unwanted


def make_voice(seed: int, frames: int = 20) -> Voice:
    codes = np.random.default_rng(seed).integers(0, 1024, (10, frames), dtype=np.int32)
    return Voice(codes, "What the reference says.")


def make_request(
    voice: Voice, segment: int = 0, text: str = "Hello.", seed: int = 0, **generation: Any
) -> SpeechRequest:
    most = generation.setdefault("max_new_tokens", 12)
    return SpeechRequest(segment, text, voice, Generation(**{"min_new_tokens": min(12, most), **generation}), seed)


def fixed_request(voice: Voice, segment: int, frames: int, text: str = LONG_TEXT, **generation: Any) -> SpeechRequest:
    """A request for exactly so many frames."""
    return make_request(voice, segment, text, seed=segment, max_new_tokens=frames, min_new_tokens=frames, **generation)


def greedy(request: SpeechRequest) -> SpeechRequest:
    """The request with greedy decoding."""
    return replace(request, generation=request.generation.model_copy(update={"top_p": 1e-6, "repetition_penalty": 1.0}))


def make_scheduler(
    checkpoint: Path,
    slots: int,
    *,
    positions: int = 512,
    deterministic: bool = False,
    resampling: bool = True,
    prefix_bytes: int = 10**8,
) -> SlotScheduler:
    """The batched engine's scheduler on the CPU in fp32."""
    with torch.inference_mode():
        upstream = fish.load_text2semantic(checkpoint, CPU, torch.float32)
        model = Model(upstream)
        cache = KVCache(model.slow, slots, positions, torch.float32, CPU)
        decoder = Decoder(model, cache, 1024, resampling=resampling)
    prompts = PromptBuilder(upstream.tokenizer, model.positions)
    step_runner = StepRunner(decoder, deterministic=deterministic)
    return SlotScheduler(decoder, step_runner, prompts, PrefixCache(decoder, prompts, prefix_bytes))


def codes_of(scheduler: SlotScheduler, requests: Iterable[SpeechRequest]) -> dict[int, np.ndarray[Any, Any]]:
    """Codes ``[codebooks, frames]`` of each segment."""
    results = list(scheduler.run(requests))
    assert all(isinstance(result, SegmentCodes) for result in results), results
    return {result.request.segment: result.codes.numpy() for result in results if isinstance(result, SegmentCodes)}


def weight_of(product: PackedLinear) -> Tensor:
    """A copy of a product's weight ``[outputs, inputs]``, in torch's own layout."""
    weight = product._weight
    return weight.to_dense() if weight.is_mkldnn else weight.clone()


@contextmanager
def loaded(engine: BatchedEngine) -> Iterator[BatchedEngine]:
    """The engine with its models loaded; it is closed at the end."""
    engine.load(lambda _line: None)
    try:
        yield engine
    finally:
        engine.close()


def generated(engine: BatchedEngine, requests: list[SpeechRequest]) -> dict[int, SegmentAudio]:
    """Generate all requests, none of which may fail: their audio by segment."""
    results = list(engine.speak(requests))
    assert all(isinstance(result, SegmentAudio) for result in results), results
    assert len(results) == len(requests)
    return {result.segment: result for result in results if isinstance(result, SegmentAudio)}
