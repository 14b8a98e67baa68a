"""The batched engine's models on a GPU: the step over token rows and the codec's kernels, loaded and put together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import torch

from cloner.engine.base import LogFunction
from cloner.engine.checkpoint import fish
from cloner.engine.codec.padded import CODEC_FRAMES, CodecDecoder
from cloner.engine.codec.precision import load_codec_decoder
from cloner.engine.codec.stage import CodecStage
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.kernel_trial.check import CheckedKernels, EngineSetup, check_kernels
from cloner.engine.memory import GB, MemoryBudget, free_bytes, used_bytes
from cloner.engine.pipeline import Options, Pipeline
from cloner.engine.prompt import PromptBuilder
from cloner.engine.token_rows.device import PROMPT_BUCKETS, StepOptions, make_step
from cloner.engine.token_rows.page_plan import plan_pages
from cloner.engine.token_rows.paged_cache import RESERVED, page_bytes
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.engine.token_rows.segments import SegmentFactory
from cloner.engine.token_rows.weights import StepWeights
from cloner.engine.token_rows.workspace import DRIVER_BYTES, CodecMemory, step_bytes
from cloner.events import Event as LogEvent

SWITCH_S = 0.0005
"""Seconds after which a thread that computes in Python lets others run. With Python's 5 ms, the thread that launches
steps of 3 ms would come too late whenever another thread is busy."""


@torch.inference_mode()
def load_gpu_pipeline(
    checkpoint_dir: Path, device: torch.device, precision: torch.dtype, options: Options, log: LogFunction
) -> Pipeline:
    """Load the models of a checkpoint and size the cache by what they leave. Raises `LoadFailed`, or torch's
    `OutOfMemoryError`."""
    before = used_bytes(device)
    setup = EngineSetup(checkpoint_dir, device, precision, options.slots, options.deterministic, options.resampling)
    with _checking_kernels(setup, options.kernel_cache) as checking:
        log(LogEvent.LOADING_TEXT2SEMANTIC.line())
        upstream = fish.load_text2semantic(checkpoint_dir, device, precision)
        prompts = PromptBuilder(upstream.tokenizer, upstream.config.max_seq_len)
        weights = StepWeights.take(upstream, fish.end_token(upstream))
        del upstream
        log(LogEvent.LOADING_DAC.line())
        limit = int(options.memory_gb * GB)
        codec_memory = CodecMemory.of(fish.build_codec(checkpoint_dir))
        batch_frames = codec_memory.batch_frames(limit)
        codec = load_codec_decoder(checkpoint_dir, device, batch_frames, lambda: checking.result().codec)
        kernels = checking.result()
    frames = min(codec.max_frames, weights.positions)
    step_buffers = step_bytes(weights, options.slots, PROMPT_BUCKETS[-1], frames)
    workspace = DRIVER_BYTES + step_buffers + codec_memory.reserved_bytes(batch_frames)
    budget = MemoryBudget(limit, used_bytes(device) - before, free_bytes(device), workspace)
    page = page_bytes(len(weights.slow), weights.slow[0].attention.heads, precision)
    plan = plan_pages(budget, page, options.slots, exactly=options.deterministic)
    log(plan.log_line())
    step = make_step(
        weights,
        StepOptions(plan.slots, plan.pages, weights.positions, frames, options.deterministic, options.resampling),
        kernels.step,
    )
    step.warm_up()
    sys.setswitchinterval(SWITCH_S)
    factory = SegmentFactory(prompts, weights.positions, frames, plan.pages - RESERVED)
    codec_stage = CodecStage(codec, lambda: CodecDecoder(checkpoint_dir, torch.device("cpu"), CODEC_FRAMES))
    return Pipeline(RowScheduler(step, factory), codec_stage, kernels.warning)


@contextmanager
def _checking_kernels(setup: EngineSetup, cache: KernelCache | None) -> Iterator[Future[CheckedKernels]]:
    """The kernels that work, tried beside what is done inside it; an error there ends the trial."""
    stop = Event()
    with ThreadPoolExecutor(1, thread_name_prefix="kernels") as pool:
        try:
            yield pool.submit(_check_kernels, setup, cache, stop)
        except BaseException:
            stop.set()
            raise


def _check_kernels(setup: EngineSetup, cache: KernelCache | None, stop: Event) -> CheckedKernels:
    """Those that work on the GPU, tried in child processes while this one loads the models."""
    return check_kernels(setup, cache, stop) if cache and setup.device.type == "cuda" else CheckedKernels()
