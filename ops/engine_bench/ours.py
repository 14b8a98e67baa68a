"""The batched engine's scheduler without the codec, and its speed."""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import patch

import torch

from cloner.engine.base import SpeechRequest
from cloner.engine.checkpoint import fish
from cloner.engine.prompt import PromptBuilder
from cloner.engine.slots.cache import KVCache
from cloner.engine.slots.decoder import Decoder
from cloner.engine.slots.model import Model
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.engine.slots.step_runner import PendingStatuses, StepRunner
from ops.engine_bench.workload import codes_of, wait_for

PREFIX_BYTES = 2**30


@torch.inference_mode()
def load_model(directory: Path, device: torch.device, precision: torch.dtype) -> tuple[Model, PromptBuilder]:
    """The model and its prompts, as in `load_pipeline`."""
    upstream = fish.load_text2semantic(directory, device, precision)
    model = Model(upstream)
    return model, PromptBuilder(upstream.tokenizer, model.positions)


@torch.inference_mode()
def make_scheduler(model: Model, prompts: PromptBuilder, slots: int, positions: int) -> SlotScheduler:
    """A scheduler as in `load_pipeline`, but with `slots` of `positions`, whatever the memory."""
    cache = KVCache(model.slow, slots, positions, model.dtype, model.device)
    decoder = Decoder(model, cache, positions)
    step_runner = StepRunner(decoder, deterministic=False)
    prefixes = PrefixCache(decoder, prompts, PREFIX_BYTES)
    scheduler = SlotScheduler(decoder, step_runner, prompts, prefixes)
    step_runner.warm_up()
    return scheduler


def decoding_rate(scheduler: SlotScheduler, requests: list[SpeechRequest]) -> float:
    """Frames a second from the first step, when all prompts are read, until the last request is finished. `requests`
    must not be more than the slots."""
    began: list[float] = []
    device = scheduler.decoder.model.device
    step = scheduler.step_runner.step

    def timed_step(active: int, max_position: int) -> PendingStatuses:
        if not began:
            wait_for(device)
            began.append(time.perf_counter())
        return step(active, max_position)

    with patch.object(scheduler.step_runner, "step", timed_step):
        codes = [codes_of(result) for result in scheduler.run(requests)]
    wait_for(device)
    seconds = time.perf_counter() - began[0]
    if len(codes) != len(requests):
        raise RuntimeError(f"{len(codes)} of {len(requests)} segments were decoded")
    return sum(item.shape[1] for item in codes) / seconds
