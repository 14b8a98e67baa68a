"""The decoding step over token rows as the benchmark needs it: loaded, compiled in parallel, and placed at a
position."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernels.launch import distinct
from cloner.engine.kernels.step.kernel_set import TRITON, TWINS, KernelSet
from cloner.engine.kernels.step.layout import (
    FRAME,
    IDLE,
    MIN_FRAMES,
    OWNER,
    PENALTY,
    POSITION,
    TEMPERATURE,
    TOKEN,
)
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.prompt import PromptBuilder
from cloner.engine.token_rows.device import GpuStep, StepOptions
from cloner.engine.token_rows.paged_cache import RESERVED, pages_of
from cloner.engine.token_rows.rows import grouped
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.engine.token_rows.segments import SegmentFactory
from cloner.engine.token_rows.weights import ModelSizes, StepWeights

POSITIONS, FRAMES = 1152, 301
"""Of a slot: a reference of 10 s, a text, and 300 frames or, for timing, 1,000 positions."""


@torch.inference_mode()
def load_weights(directory: Path, device: torch.device, precision: torch.dtype) -> tuple[StepWeights, PromptBuilder]:
    """As the engine loads them."""
    upstream = fish.load_text2semantic(directory, device, precision)
    prompts = PromptBuilder(upstream.tokenizer, upstream.config.max_seq_len)
    return StepWeights.take(upstream, fish.end_token(upstream)), prompts


def step_options(slots: int, *, deterministic: bool = False, resampling: bool = True) -> StepOptions:
    """Slots of `POSITIONS`, and nothing shared between them."""
    pages = RESERVED + slots * (pages_of(POSITIONS) + 1)
    return StepOptions(slots, pages, POSITIONS, FRAMES, deterministic, resampling)


@torch.inference_mode()
def make_device(weights: StepWeights, options: StepOptions, kernels: KernelSet | None = None) -> GpuStep:
    """On the weights' device; with the kernels' twins where that is a CPU."""
    return GpuStep(weights, options, kernels or (TRITON if weights.head.is_cuda else TWINS))


def make_scheduler(device: GpuStep, prompts: PromptBuilder) -> RowScheduler:
    """Over a device of `step_options`."""
    factory = SegmentFactory(prompts, device.options.positions, FRAMES - 1, device.pages - RESERVED)
    return RowScheduler(device, factory)


def compile_all(size: str, plans: list[StepOptions], device: torch.device) -> float:
    """Compile the kernels of these steps' graphs into Triton's cache, one process a core. It returns the seconds."""
    if device.type != "cuda":
        return 0.0
    began, processes = time.perf_counter(), len(os.sched_getaffinity(0))
    gpu = Architecture.of(device)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_compile_share, *zip(*((size, plans, gpu, n, processes) for n in range(processes)), strict=True)))
    return time.perf_counter() - began


def _compile_share(size: str, plans: list[StepOptions], gpu: Architecture, number: int, processes: int) -> None:
    sizes = ModelSizes.of_config(CONFIGS[Preset(size)])
    weights = StepWeights.empty(sizes, torch.device("meta"), torch.bfloat16)
    launches = [launch for plan in plans for launch in GpuStep(weights, plan, gpu=gpu).launches()]
    for launch in distinct(launches)[number::processes]:
        launch.compile()


class Filling(NamedTuple):
    """`positions` that each slot has filled; the first `shared` of them are the prefix of one of `voices`."""

    positions: int
    shared: int
    voices: int = 8


@torch.inference_mode()
def place(device: GpuStep, active: int, filling: Filling) -> None:
    """Fill `active` slots so; half of the prompt rows' groups read on behind the slots' positions."""
    filled, shared, voices = filling
    device.reset()
    rows, slots = device.built.rows, device.slots
    prefix_pages, own_pages = pages_of(shared), pages_of(filled + 64 - shared)
    table, records = rows.decode.page_table.cpu(), rows.decode.records.cpu()
    first = RESERVED + voices * prefix_pages
    for slot in range(slots):
        voice = slot % voices
        pages = [RESERVED + voice * prefix_pages + n for n in range(prefix_pages)]
        pages += [(first + slot * own_pages + n) % device.pages for n in range(own_pages)]
        table[slot].zero_()
        table[slot, 0] = shared
        table[slot, 1 : 1 + len(pages)] = torch.tensor(pages, dtype=torch.int32)
    records[:, TOKEN] = device.weights.embeddings.first_semantic
    records[:, POSITION], records[:, FRAME], records[:, MIN_FRAMES] = filled, 5, 10_000
    records[:, OWNER] = torch.arange(len(records))
    records[:, TEMPERATURE : PENALTY + 1] = torch.tensor([0.7, 0.7, 1.2]).view(torch.int32)
    rows.decode.page_table.copy_(table)
    rows.decode.records.copy_(records)
    rows.sampler.noise.uniform_()
    prompts = rows.prompt.records.cpu()
    texts = torch.arange(len(prompts))
    prompts[:, OWNER] = ((texts // 32) % slots).int()
    prompts[:, POSITION] = (max(shared, filled - 50) + texts % 32).int()
    rows.prompt.records.copy_(prompts)
    rows.decode.row_record[:active] = torch.arange(active, dtype=torch.int32)
    listed = torch.tensor(grouped([slot % voices for slot in range(active)]), dtype=torch.int32)
    rows.decode.groups.fill_(IDLE)
    rows.decode.groups[: len(listed)] = listed
