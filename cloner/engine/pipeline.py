"""The batched engine's models, loaded and put together: the scheduler with its decoder, and the codec's stage.

This is the pipeline of a CPU, and of a GPU on which the kernels cannot be compiled; `gpu_pipeline.py` makes that of
other GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from cloner.engine.base import ChunkObserver, LogFunction, SegmentFailure, SpeechRequest
from cloner.engine.checkpoint import fish
from cloner.engine.codec.padded import CODEC_FRAMES, CodecDecoder
from cloner.engine.codec.stage import CodecStage
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.memory import GB, MemoryBudget, free_bytes, plan_cache, used_bytes, workspace_bytes
from cloner.engine.prompt import PromptBuilder
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slots.cache import KVCache, position_bytes
from cloner.engine.slots.decoder import Decoder
from cloner.engine.slots.model import Model
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.engine.slots.step_runner import StepRunner
from cloner.events import Event

SLOT_POSITIONS = 2048
"""Positions of a usual slot: 30 s of reference, its text and the segment's, and 1,024 frames."""


@dataclass(frozen=True)
class Options:
    """At most `slots`, as many as fit into `memory_gb` beside the models. With `deterministic`, exactly so many, and a
    segment's codes do not depend on its neighbours. `resampling` is turned off only to compare with an upstream that
    does not draw repeated tokens again."""

    memory_gb: float
    slots: int
    deterministic: bool = False
    resampling: bool = True
    kernel_cache: KernelCache | None = None
    """Where a GPU's compiled kernels are kept; without one, where Triton keeps them."""


class ChunkScheduler(Protocol):
    """Requests to codes: `SlotScheduler` or `RowScheduler`."""

    @property
    def slots(self) -> int:
        """Segments decoded at the same time: fewer after memory ran out."""
        ...

    @property
    def cache_bytes(self) -> int:
        """Memory of the slots and of the references that were read."""
        ...

    @property
    def steps(self) -> int:
        """Steps taken and references read."""
        ...

    def run(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver
    ) -> Iterator[SegmentCodes | SegmentFailure]:
        """Decode all requests, and those that are added to a `RequestQueue` meanwhile: exactly one result a request.
        If `observer` stops it, unfinished segments are dropped."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """Requests to codes, and codes to audio."""

    scheduler: ChunkScheduler
    codec_stage: CodecStage
    warning: str = ""
    """Why it is slower than it could be on this device, if it is."""

    @property
    def steps(self) -> int:
        """Steps taken, references read and pieces of audio begun: grows while there is progress."""
        return self.scheduler.steps + self.codec_stage.pieces


@torch.inference_mode()
def load_pipeline(
    checkpoint_dir: Path, device: torch.device, precision: torch.dtype, options: Options, log: LogFunction
) -> Pipeline:
    """Load the models of a checkpoint and size the cache by what they leave. Raises `LoadFailed`, or torch's
    `OutOfMemoryError`."""
    before = used_bytes(device)
    # cuDNN's attention plans again for each shape, and prompts hardly ever have the same; the other backends do not.
    torch.backends.cuda.enable_cudnn_sdp(False)
    log(Event.LOADING_TEXT2SEMANTIC.line())
    upstream = fish.load_text2semantic(checkpoint_dir, device, precision)
    model = Model(upstream)
    prompts = PromptBuilder(upstream.tokenizer, model.positions)
    del upstream
    log(Event.LOADING_DAC.line())
    codec = CodecDecoder(checkpoint_dir, device, CODEC_FRAMES)
    codec_stage = CodecStage(codec, lambda: CodecDecoder(checkpoint_dir, torch.device("cpu"), CODEC_FRAMES))
    size = plan_cache(
        MemoryBudget(
            int(options.memory_gb * GB),
            used=used_bytes(device) - before,
            free=free_bytes(device),
            workspace=workspace_bytes(device),
        ),
        position_bytes(model.slow, precision),
        min(SLOT_POSITIONS, model.positions),
        options.slots,
        exactly=options.deterministic,
    )
    log(size.log_line())
    cache = KVCache(model.slow, size.slots, size.positions, precision, device)
    decoder = Decoder(model, cache, min(codec.max_frames, model.positions), resampling=options.resampling)
    step_runner = StepRunner(decoder, deterministic=options.deterministic)
    prefixes = PrefixCache(decoder, prompts, size.prefix_bytes)
    scheduler = SlotScheduler(decoder, step_runner, prompts, prefixes)
    step_runner.warm_up()
    return Pipeline(scheduler, codec_stage)
