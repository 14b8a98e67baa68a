"""The batched engine's decoder alone, and how fast it is."""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import patch

import torch

from cloner.engine import fish
from cloner.engine.base import SpeechRequest
from cloner.engine.cache import KVCache
from cloner.engine.decoder import Decoder
from cloner.engine.model import Model
from cloner.engine.prefix_cache import PrefixCache
from cloner.engine.prompt import PromptBuilder
from cloner.engine.scheduler import Scheduler
from cloner.engine.step_runner import PendingStatuses, StepRunner
from ops.engine_bench.upstream import wait_for
from ops.engine_bench.workload import codes_of

PREFIX_BYTES = 2**30


@torch.inference_mode()
def load_model(directory: Path, device: torch.device, precision: torch.dtype) -> tuple[Model, PromptBuilder]:
    """As `BatchedEngine` loads it."""
    upstream = fish.load_text2semantic(directory, device, precision)
    model = Model(upstream)
    return model, PromptBuilder(upstream.tokenizer, model.positions)


@torch.inference_mode()
def make_scheduler(model: Model, prompts: PromptBuilder, slots: int, positions: int) -> Scheduler:
    """As `BatchedEngine` makes it, but with `slots` of `positions` whatever the memory."""
    cache = KVCache(model.slow, slots, positions, model.dtype, model.device)
    decoder = Decoder(model, cache, positions)
    step_runner = StepRunner(decoder, deterministic=False)
    prefixes = PrefixCache(decoder, prompts, PREFIX_BYTES)
    scheduler = Scheduler(decoder, step_runner, prompts, prefixes)
    step_runner.warm_up()
    return scheduler


def decoding_rate(scheduler: Scheduler, requests: list[SpeechRequest]) -> float:
    """Frames a second from the first step, when all prompts are read, until the last request is finished. There are no
    more requests than slots."""
    began: list[float] = []
    device = scheduler.decoder.model.device
    step = scheduler.step_runner.step

    def noted_step(active: int, longest: int) -> PendingStatuses:
        if not began:
            wait_for(device)
            began.append(time.perf_counter())
        return step(active, longest)

    with patch.object(scheduler.step_runner, "step", noted_step):
        codes = [codes_of(result) for result in scheduler.run(requests)]
    wait_for(device)
    seconds = time.perf_counter() - began[0]
    if len(codes) != len(requests):
        raise RuntimeError(f"{len(codes)} of {len(requests)} segments were spoken")
    return sum(item.shape[1] for item in codes) / seconds
