"""The step over token rows, with the kernels' twins on a CPU, against the decoder over slots: the same weights in
fp32."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.batch import Generation
from cloner.engine.base import SegmentFailure, Voice
from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernels.step.kernel_set import TRITON, TWINS, KernelSet
from cloner.engine.kernels.step.layout import CODEBOOKS, CONTINUES, DRAWS, END, PAGE
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slots.model import Model
from cloner.engine.token_rows.device import DETERMINISTIC_PROMPTS, GpuStep, StepOptions, StepRows
from cloner.engine.token_rows.rows import PromptPiece, SlotStart, some
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.engine.token_rows.token_step import TokenStep, padded
from cloner.engine.token_rows.weights import ModelSizes, StepWeights
from cloner.engine.tokens import Tokens
from tests.support.engine_requests import codes_of as codes_over_slots
from tests.support.engine_requests import fixed_request, greedy, make_request, make_scheduler, make_voice
from tests.unit.engine.token_rows.rows import load_weights, make_row_scheduler


@pytest.fixture(scope="module")
def scheduler(tiny: Path) -> RowScheduler:
    """Three slots. A test that changes its weights changes them back."""
    return make_row_scheduler(tiny, 3)


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


def codes_of(scheduler: RowScheduler, lines: Any) -> dict[int, np.ndarray[Any, Any]]:
    return codes_over_slots(scheduler, lines)  # type: ignore[arg-type]


def step_of(scheduler: RowScheduler) -> GpuStep:
    assert isinstance(scheduler.device, GpuStep)
    return scheduler.device


def test_greedy_codes_are_those_of_the_decoder_over_slots(tiny: Path) -> None:
    lines = [greedy(fixed_request(make_voice(n % 2, frames=12 + 40 * (n % 2)), n, 2 + n)) for n in range(5)]
    expected = codes_over_slots(make_scheduler(tiny, 3, resampling=False), lines)
    found = codes_of(make_row_scheduler(tiny, 3, resampling=False), lines)
    for segment, codes in expected.items():
        assert np.array_equal(found[segment], codes), segment


def test_logits_are_those_of_the_decoder_over_slots(tiny: Path, voice: Voice) -> None:
    lines = [greedy(fixed_request(voice, n, 3)) for n in range(2)]
    theirs: list[Tensor] = []
    logits = Model.logits

    def recorded(model: Model, hidden: Tensor) -> Tensor:
        made = logits(model, hidden)
        theirs.append(made.clone())
        return made

    with patch.object(Model, "logits", recorded):
        codes_over_slots(make_scheduler(tiny, 2, resampling=False), lines)
    scheduler = make_row_scheduler(tiny, 2, resampling=False)
    ours: list[Tensor] = []
    launch = step_of(scheduler).launch

    def launched(rows: Any) -> Any:
        statuses = launch(rows)
        if rows.slots:
            ours.append(step_of(scheduler).built.step.logits[:2, : END + 1].clone())
        return statuses

    with patch.object(scheduler.device, "launch", launched):
        codes_of(scheduler, lines)
    assert len(ours) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert ((one - other).abs().max() / other.abs().max()).item() < 1e-5


@torch.inference_mode()
def one_step(checkpoint: Path, kernels: KernelSet) -> dict[str, Tensor]:
    """What a step leaves that reads a prefix of five tokens and decodes the first token behind it."""
    weights, _prompts = load_weights(checkpoint)
    step = GpuStep(weights, StepOptions(1, 4, 2 * PAGE, 4, resampling=True), kernels)
    tokens = Tokens(torch.arange(60, 66), torch.zeros(6, CODEBOOKS, dtype=torch.long))
    noise = torch.rand(5, DRAWS, generator=torch.Generator().manual_seed(1))
    start = SlotStart(some(tokens, slice(5, 6)), 5, 5, [1], [2], Generation(), noise)
    step.admit(0, start)
    read = PromptPiece(step.set_prefix(0, [1]), 0, some(tokens, slice(5)))
    assert step.launch(StepRows((0,), ("voice",), [read]))() == [CONTINUES]
    built = step.built
    return {
        "logits": built.step.logits[:1, : END + 1],
        "last logits": built.step.fast_logits[:1],
        "record": built.rows.decode.records[:1],
        "generated": built.rows.sampler.generated[:1],
        "cache": built.cache.memory[:, :, 1:3],
    }


@pytest.mark.slow
def test_the_kernels_make_a_whole_step_as_their_twins_do(tiny: Path) -> None:
    """In Triton's interpreter, which takes seconds for a frame."""
    kernels, twins = one_step(tiny, TRITON), one_step(tiny, TWINS)
    for name, value in twins.items():
        difference = (kernels[name].float() - value.float()).abs().max().item()
        assert difference < 1e-4 * max(1.0, value.float().abs().max().item()), name


def test_a_token_whose_weights_are_no_numbers_fails_its_segment_alone(scheduler: RowScheduler, voice: Voice) -> None:
    fine = [fixed_request(voice, n, 3, "Nothing wrong here.") for n in range(3)]
    before = codes_of(scheduler, fine)
    tokens = step_of(scheduler).weights.embeddings.tokens
    kept = tokens[ord("~")].clone()
    with torch.inference_mode():
        tokens[ord("~")] = torch.nan
        answers: list[Any] = list(scheduler.run([fine[0], make_request(voice, 9, "So ~ it is."), *fine[1:]]))
        tokens[ord("~")] = kept
    assert [(a.segment, a.code) for a in answers if isinstance(a, SegmentFailure)] == [(9, "generation_failed")]
    found = {a.request.segment: a.codes for a in answers if isinstance(a, SegmentCodes)}
    assert not step_of(scheduler).built.cache.memory[:, :, 1:].isnan().any(), "its pages are cleared"
    for codes in (found, codes_of(scheduler, fine)):
        assert codes.keys() == before.keys()
        assert all(np.array_equal(codes[n], before[n]) for n in before)


@pytest.mark.parametrize("part", ["slow layer", "end token", "fast layer", "fast head"])
def test_weights_that_are_no_numbers_are_noticed_wherever_they_are(
    part: str, scheduler: RowScheduler, voice: Voice
) -> None:
    weights = step_of(scheduler).weights
    weight = {
        "slow layer": weights.slow[1].down,
        "end token": weights.head[END],
        "fast layer": weights.fast[0].qkv,
        "fast head": weights.fast_head[7],
    }[part]
    kept = weight.clone()
    with torch.inference_mode():
        weight.fill_(torch.nan)
        (answer,) = scheduler.run([make_request(voice, max_new_tokens=2)])
        weight.copy_(kept)
    assert isinstance(answer, SegmentFailure)
    assert answer.code == "generation_failed"


@pytest.mark.slow
def test_deterministic_codes_depend_on_no_neighbour_order_or_slot(tiny: Path) -> None:
    scheduler = make_row_scheduler(tiny, 3, positions=256, deterministic=True)
    texts = ["A somewhat longer text, in another voice.", "Hm, and", "Hello you.", "One more of them."]
    lines = [
        make_request(make_voice(n % 2, frames=9 + 20 * (n % 2)), n, texts[n], seed=n, max_new_tokens=4)
        for n in range(4)
    ]
    alone = {line.segment: codes_of(scheduler, [line])[line.segment] for line in lines}
    for order in (lines, [lines[2], lines[0], lines[3]]):
        together = codes_of(scheduler, order)
        assert all(np.array_equal(codes, alone[segment]) for segment, codes in together.items())


def test_fewer_slots_take_the_old_memory_back_before_the_new_is_taken(tiny: Path, voice: Voice) -> None:
    scheduler = make_row_scheduler(tiny, 4)
    device = step_of(scheduler)
    pages = device.pages
    storage = device.built.cache.memory.untyped_storage()._weak_ref()
    with patch("cloner.engine.token_rows.device.PagedCache", wraps=None) as cache:
        freed: list[bool] = []

        def made(*_: Any) -> None:
            freed.append(bool(torch.UntypedStorage._expired(storage)))
            raise MemoryError

        cache.side_effect = made
        with pytest.raises(MemoryError):
            device.resize(2)
    torch.UntypedStorage._free_weak_ref(storage)  # type: ignore[no-untyped-call]
    assert freed == [True]
    scheduler.pool._resize(2)
    assert (device.slots, device.pages) == (2, 1 + (pages - 1) // 2)
    assert codes_of(scheduler, [fixed_request(voice, 0, 2)])[0].shape == (10, 2)


@pytest.mark.parametrize("capability", [80, 86, 90])
@pytest.mark.parametrize("dim", [1024, 1000, 2048, 4096, 8192])
def test_the_sums_of_squares_of_wide_models_have_room(capability: int, dim: int) -> None:
    sizes = replace(ModelSizes.of_config(CONFIGS[Preset.TINY]), dim=dim)
    weights = StepWeights.empty(sizes, torch.device("meta"), torch.bfloat16)
    kernels = KernelSet(**{each.name: MagicMock() for each in fields(KernelSet)})
    step = GpuStep(weights, StepOptions(256, 600, 2048, 8), kernels, Architecture.named(capability))
    for decode, prompts in [(decode, prompts) for decode in (1, 33, 128, 256) for prompts in (0, 256)]:
        step.built.step.run(decode, prompts)
    sums = [
        call for call in cast(MagicMock, kernels.linear).call_args_list if call.kwargs["residual_squares"] is not None
    ]
    assert sums
    for call in sums:
        _x, weight, _out, rows, tile, _scratch = call.args
        assert call.kwargs["residual_squares"].numel() >= padded(rows) * (len(weight) // tile.bn), (rows, tile)


def test_deterministic_steps_keep_their_shape_when_slots_are_lost(tiny: Path, voice: Voice) -> None:
    """Tiles and parts of attention follow from the rows, and the last bits of a segment's values from those."""
    scheduler = make_row_scheduler(tiny, 4, positions=256, deterministic=True)
    device = step_of(scheduler)
    lines = [make_request(make_voice(n), n, "Hm, and", seed=n, max_new_tokens=3) for n in range(2)]
    run, shapes = TokenStep.run, set()

    def recorded(step: TokenStep, decode: int, prompts: int) -> None:
        shapes.add((decode, prompts))
        run(step, decode, prompts)

    with patch.object(TokenStep, "run", recorded):
        before, pages = codes_of(scheduler, lines), device.pages
        scheduler.pool._resize(2)
        assert (device.slots, device.pages) == (2, 1 + (pages - 1) // 2)
        after = codes_of(scheduler, lines)
    assert shapes == set(device.shapes()) == {(4, DETERMINISTIC_PROMPTS)}
    assert all(np.array_equal(codes, before[segment]) for segment, codes in after.items())
