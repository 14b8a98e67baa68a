"""What is reserved on a GPU, against what the models of the published size ask for, on the ``meta`` device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cloner.audio import FRAME_SAMPLES
from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.codec.ragged_waveform import RaggedWaveform
from cloner.engine.kernels.codec.kernel_set import CodecKernels, CodecPlan
from cloner.engine.kernels.codec.residual_unit import SUM_ROWS
from cloner.engine.kernels.codec.tiles import codec_tiles
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.memory import GB, MemoryBudget
from cloner.engine.token_rows.device import PROMPT_BUCKETS, GpuStep, StepOptions
from cloner.engine.token_rows.page_plan import PagePlan, plan_pages
from cloner.engine.token_rows.paged_cache import PagedCache, page_bytes
from cloner.engine.token_rows.weights import ModelSizes, StepWeights
from cloner.engine.token_rows.workspace import DRIVER_BYTES, RECORDING_FRAMES, ROUNDING, CodecMemory, step_bytes
from cloner.errors import LoadFailed
from tests.unit.engine.peak_memory import PeakMemory

META = torch.device("meta")
FRAMES = 1024
"""Of a segment, at most, in S1-mini."""


def nothing(*_args: Any, **_options: Any) -> Any:
    """Stands in for a kernel, which writes to memory that is there."""


NO_KERNELS = CodecKernels(nothing, nothing, nothing, nothing, nothing, nothing)


@pytest.fixture(scope="module")
def weights() -> StepWeights:
    return StepWeights.empty(ModelSizes.of_config(CONFIGS[Preset.S1_MINI]), META, torch.bfloat16)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> CodecMemory:
    return CodecMemory.of(published_codec(tmp_path_factory.mktemp("none")))


def published_codec(empty: Path) -> Any:
    """Upstream's codec in its own size, without weights, normalised as `fish.load_codec` does."""
    codec = fish.build_codec(empty)
    for module in codec.modules():
        if hasattr(module, "freqs_cis"):
            module.freqs_cis = module.freqs_cis.to(META)
    fish._bake(codec.to(META), META)
    return codec


@torch.inference_mode()
def test_a_frame_that_is_decoded_takes_what_is_reserved_for_it(memory: CodecMemory, tmp_path: Path) -> None:
    codec = published_codec(tmp_path)
    waveform = RaggedWaveform(codec.decoder, CodecPlan(torch.float16, codec_tiles((9, 0), 227 * 1024), NO_KERNELS))
    frames = 64
    latents = torch.empty(4 * frames, 1024, dtype=torch.float16, device=META)
    samples = torch.empty(frames * FRAME_SAMPLES, device=META)
    finite = torch.empty(len(samples) // SUM_ROWS, dtype=torch.int8, device=META)
    with PeakMemory() as taken:
        waveform(latents, torch.empty(frames, dtype=torch.int8, device=META), samples=samples, finite=finite)
    assert memory.frame_bytes == pytest.approx(taken.peak / frames * ROUNDING, rel=0.01)


@torch.inference_mode()
def test_encoding_the_longest_recording_takes_what_is_reserved_for_it(memory: CodecMemory, tmp_path: Path) -> None:
    codec = published_codec(tmp_path)
    with PeakMemory() as taken:
        codec.encoder(torch.empty(1, 1, RECORDING_FRAMES * FRAME_SAMPLES, device=META))
    assert memory.encoding_bytes == pytest.approx(taken.peak, rel=0.01)


@pytest.mark.parametrize("slots", [64, 128, 256])
def test_a_steps_buffers_are_reserved(slots: int, weights: StepWeights) -> None:
    built = GpuStep(weights, StepOptions(slots, 2 * slots, 2048, FRAMES), gpu=Architecture.named(90)).built
    taken = sum(bytes_by_storage([built.rows, built.step], {}).values())
    assert taken <= step_bytes(weights, slots, PROMPT_BUCKETS[-1], FRAMES) <= 1.5 * taken


def bytes_by_storage(value: Any, found: dict[int, int]) -> dict[int, int]:
    """The memory on the device of all buffers in `value`: not the weights', and not the pages'."""
    match value:
        case Tensor() if value.device == META:
            found[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        case list() | tuple():
            for each in value:
                bytes_by_storage(each, found)
        case StepWeights() | PagedCache() | type():
            pass
        case _ if type(value).__module__.startswith("cloner.engine"):
            bytes_by_storage(list(vars(value).values()), found)
    return found


@pytest.mark.parametrize(
    ("card_gb", "batch_frames", "slots"),
    [(80, 1024, 128), (24, 1024, 128), (16, 512, 96), (12, 512, 55), (8, 256, 19)],
)
def test_cards_that_people_have(
    card_gb: int, batch_frames: int, slots: int, memory: CodecMemory, weights: StepWeights
) -> None:
    limit = int(0.9 * card_gb * GB)
    assert memory.batch_frames(limit) == batch_frames
    plan, budget = planned(limit, memory, weights)
    assert plan.slots == slots
    assert budget.used + budget.workspace + plan.nbytes <= limit


def test_a_card_that_is_too_small_is_refused(memory: CodecMemory, weights: StepWeights) -> None:
    with pytest.raises(LoadFailed, match=r"a cache of 2048 positions needs 3\.6 GB beside the models"):
        planned(int(0.9 * 6 * GB), memory, weights)


def planned(limit: int, memory: CodecMemory, weights: StepWeights) -> tuple[PagePlan, MemoryBudget]:
    """As `load_gpu_pipeline` plans for 128 slots, with 1.74 GB of weights and the graphs of the codec's batches."""
    batch_frames = memory.batch_frames(limit)
    loaded = int(1.74 * GB) + batch_frames * memory.frame_bytes
    workspace = (
        DRIVER_BYTES + step_bytes(weights, 128, PROMPT_BUCKETS[-1], FRAMES) + memory.reserved_bytes(batch_frames)
    )
    budget = MemoryBudget(limit, loaded, free=limit, workspace=workspace)
    page = page_bytes(len(weights.slow), weights.slow[0].attention.heads, torch.bfloat16)
    return plan_pages(budget, page, 128), budget
