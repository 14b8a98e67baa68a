"""The step over token rows for tests: with the kernels' twins on a CPU, beside the slots' decoder of the same
weights."""

from __future__ import annotations

from pathlib import Path

import torch

from cloner.engine.checkpoint import fish
from cloner.engine.kernels.step.kernel_set import TWINS, KernelSet
from cloner.engine.prompt import PromptBuilder
from cloner.engine.token_rows.device import GpuStep, StepOptions
from cloner.engine.token_rows.paged_cache import RESERVED, pages_of
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.engine.token_rows.segments import SegmentFactory
from cloner.engine.token_rows.weights import StepWeights
from tests.support.engine_requests import CPU


@torch.inference_mode()
def load_weights(checkpoint: Path) -> tuple[StepWeights, PromptBuilder]:
    upstream = fish.load_text2semantic(checkpoint, CPU, torch.float32)
    prompts = PromptBuilder(upstream.tokenizer, upstream.config.max_seq_len)
    return StepWeights.take(upstream, fish.end_token(upstream)), prompts


@torch.inference_mode()
def make_row_scheduler(
    checkpoint: Path,
    slots: int,
    *,
    positions: int = 512,
    frames: int = 128,
    deterministic: bool = False,
    resampling: bool = True,
    kernels: KernelSet = TWINS,
) -> RowScheduler:
    """What an engine on a GPU is made of, on the CPU in fp32, without a codec."""
    weights, prompts = load_weights(checkpoint)
    pages = RESERVED + slots * pages_of(positions)
    device = GpuStep(weights, StepOptions(slots, pages, positions, frames, deterministic, resampling), kernels)
    return RowScheduler(device, SegmentFactory(prompts, min(positions, weights.positions), frames, pages - RESERVED))
