"""When memory runs out: fewer slots, all segments that fit are decoded, and the slots come back."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cloner.engine.base import SegmentFailure, Voice
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slot_backoff import ROUNDS
from cloner.engine.slots.cache import _zeros
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.events import Event
from tests.support.engine_requests import codes_of, fixed_request, make_request, make_scheduler, make_voice
from tests.support.log_lines import find_lines


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


def ask_for_too_much() -> None:
    """Make the allocator raise its error for missing memory."""
    torch.empty(2**50)


def most_memory(scheduler: SlotScheduler, share: int) -> AbstractContextManager[object]:
    """Limits the cache to one `share`th of its present size within the context."""
    most = scheduler.decoder.cache.nbytes // share

    def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        if math.prod(shape) * dtype.itemsize > most:
            ask_for_too_much()
        return _zeros(shape, dtype, device)

    return patch("cloner.engine.slots.cache._zeros", zeros)


def test_when_memory_runs_out_slots_are_halved_and_all_segments_are_decoded(
    tiny: Path, voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = make_scheduler(tiny, 4)
    step, total = scheduler.step_runner.step, scheduler.decoder.cache.total_positions

    def scarce_step(active: int, longest: int) -> Any:
        if active > 1 and scheduler.usage.steps > 2:
            ask_for_too_much()
        return step(active, longest)

    requests = [fixed_request(voice, n, 3 + n) for n in range(6)]
    with patch.object(scheduler.step_runner, "step", scarce_step):
        codes = codes_of(scheduler, requests)
    assert {n: segment.shape for n, segment in codes.items()} == {n: (10, 3 + n) for n in range(6)}
    assert (scheduler.step_runner.slots, scheduler.decoder.cache.total_positions) == (1, total // 4)
    assert find_lines(capsys.readouterr().err.splitlines(), Event.OUT_OF_MEMORY) == [
        Event.OUT_OF_MEMORY.line(slots=4, fewer=2),
        Event.OUT_OF_MEMORY.line(slots=2, fewer=1),
    ]
    assert codes_of(scheduler, requests[:1])[0].shape == (10, 3), "and so are later chunks"


def test_when_half_of_the_slots_do_not_fit_either_fewer_are_tried(
    tiny: Path, voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = make_scheduler(tiny, 8)
    step = scheduler.step_runner.step

    def scarce_step(active: int, longest: int) -> Any:
        if active > 2:
            ask_for_too_much()
        return step(active, longest)

    with patch.object(scheduler.step_runner, "step", scarce_step), most_memory(scheduler, 4):
        codes = codes_of(scheduler, [fixed_request(voice, n, 3) for n in range(4)])
    assert len(codes) == 4
    assert find_lines(capsys.readouterr().err.splitlines(), Event.OUT_OF_MEMORY) == [
        Event.OUT_OF_MEMORY.line(slots=8, fewer=2)
    ]


def test_when_memory_runs_out_while_a_reference_is_read_all_segments_are_decoded(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 2)
    prefill, calls = scheduler.decoder._prefill_together, []

    def scarce_prefill(prefills: Any) -> None:
        calls.append(prefills)
        if len(calls) == 2:
            ask_for_too_much()
        prefill(prefills)

    with patch.object(scheduler.decoder, "_prefill_together", scarce_prefill):
        codes = codes_of(scheduler, [fixed_request(voice, 0, 4), fixed_request(make_voice(7), 1, 5)])
    assert [codes[n].shape for n in range(2)] == [(10, 4), (10, 5)]
    assert scheduler.step_runner.slots == 1


def test_a_segment_that_does_not_fit_alone_fails_and_the_others_go_on(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 1)
    requests = [fixed_request(voice, n, 5) for n in range(3)]
    step = scheduler.step_runner.step

    def scarce_step(active: int, longest: int) -> Any:
        first = scheduler.running.segments[0]
        if first and first.request.segment == 1:
            ask_for_too_much()
        return step(active, longest)

    with patch.object(scheduler.step_runner, "step", scarce_step):
        results = list(scheduler.run(requests))
    failed = [result for result in results if isinstance(result, SegmentFailure)]
    assert [(result.segment, result.code) for result in failed] == [(1, "out_of_memory")]
    assert len(results) == 3


def test_without_any_memory_all_segments_fail_after_a_bounded_number_of_tries(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 4)
    with patch.object(scheduler.step_runner, "step", lambda _active, _longest: ask_for_too_much()):
        results = list(scheduler.run([fixed_request(voice, n, 5) for n in range(9)]))
    assert sorted(result.segment for result in results if isinstance(result, SegmentFailure)) == list(range(9))
    assert {result.code for result in results if isinstance(result, SegmentFailure)} == {"out_of_memory"}


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_segment_larger_than_half_the_memory_is_decoded_if_the_other_half_comes_back(
    comes_back: bool, tiny: Path, voice: Voice
) -> None:
    scheduler = make_scheduler(tiny, 2)
    room = scheduler.decoder.cache.total_positions
    long = make_request(voice, 1, max_new_tokens=room * 3 // 4, min_new_tokens=2)
    step, steps = scheduler.step_runner.step, scheduler.usage.steps

    def scarce_step(active: int, longest: int) -> Any:
        if scheduler.usage.steps == steps + 2 and scheduler.step_runner.current_slots == 2:
            ask_for_too_much()
        return step(active, longest)

    with patch.object(scheduler.step_runner, "step", scarce_step), most_memory(scheduler, 1 if comes_back else 2):
        results = list(scheduler.run([fixed_request(voice, 0, 5), long]))
    assert isinstance(results[0], SegmentCodes)
    if comes_back:
        assert isinstance(results[1], SegmentCodes)
    else:
        assert isinstance(results[1], SegmentFailure)
        assert results[1].code == "out_of_memory"


def test_memory_that_ran_out_in_attention_is_released_before_half_of_it_is_allocated(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 2)
    cache, attention = scheduler.decoder.cache, functional.scaled_dot_product_attention
    storage = cache._memory.untyped_storage()._weak_ref()
    freed: list[bool] = []

    def scarce(*args: Any, **kwargs: Any) -> Tensor:
        if scheduler.usage.steps > 2 and not freed:
            ask_for_too_much()
        return attention(*args, **kwargs)

    def zeros(*args: Any) -> Tensor:
        freed.append(bool(torch.UntypedStorage._expired(storage)))
        return _zeros(*args)

    with (
        patch.object(functional, "scaled_dot_product_attention", scarce),
        patch("cloner.engine.slots.cache._zeros", zeros),
    ):
        codes = codes_of(scheduler, [fixed_request(voice, n, 5) for n in range(3)])
    torch.UntypedStorage._free_weak_ref(storage)  # type: ignore[no-untyped-call]
    assert freed == [True]
    assert {segment.shape for segment in codes.values()} == {(10, 5)}


def never_fits(scheduler: SlotScheduler, *segments: int) -> AbstractContextManager[object]:
    """Makes every step with one of these segments run out of memory within the context."""
    step = scheduler.step_runner.step

    def scarce_step(active: int, longest: int) -> Any:
        if any(running and running.request.segment in segments for running in scheduler.running.segments):
            ask_for_too_much()
        return step(active, longest)

    return patch.object(scheduler.step_runner, "step", scarce_step)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True], ids=["free shapes", "deterministic"])
def test_after_a_segment_that_never_fits_the_slots_come_back(
    fixed: bool, tiny: Path, voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = make_scheduler(tiny, 4, deterministic=fixed)
    total, room = scheduler.decoder.cache.total_positions, scheduler.prefixes.capacity_bytes
    requests = [fixed_request(make_voice(n % 3), n, 3) for n in range(16)]
    before = codes_of(scheduler, requests)
    with never_fits(scheduler, 2):
        results = list(scheduler.run(requests))
    assert [(result.segment, result.code) for result in results if isinstance(result, SegmentFailure)] == [
        (2, "out_of_memory")
    ]
    spoken = {result.request.segment: result.codes for result in results if isinstance(result, SegmentCodes)}
    assert len(results) == 16
    assert spoken.keys() == before.keys() - {2}
    assert (scheduler.step_runner.slots, scheduler.decoder.cache.total_positions) == (4, total)
    assert scheduler.prefixes.capacity_bytes == room
    assert capsys.readouterr().err.splitlines() == [
        Event.OUT_OF_MEMORY.line(slots=4, fewer=2),
        Event.OUT_OF_MEMORY.line(slots=2, fewer=1),
        Event.MEMORY_AGAIN.line(slots=2, before=1),
        Event.MEMORY_AGAIN.line(slots=4, before=2),
    ]
    after = codes_of(scheduler, requests)
    assert all(torch.equal(torch.as_tensor(after[n]), torch.as_tensor(before[n])) for n in before)


def test_the_slots_of_a_chunk_that_ended_come_back_with_the_next(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 4)
    with never_fits(scheduler, 0):
        results = list(scheduler.run([fixed_request(voice, n, 3) for n in range(1 + ROUNDS)]))
    assert (len(results), scheduler.step_runner.slots) == (1 + ROUNDS, 1)
    codes_of(scheduler, [fixed_request(voice, n, 3) for n in range(3)])
    assert scheduler.step_runner.slots == 2


def test_while_memory_stays_scarce_more_slots_are_tried_less_and_less_often(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 4)
    step, failures = scheduler.step_runner.step, 0

    def scarce_step(active: int, longest: int) -> Any:
        nonlocal failures
        if active > 2:
            failures += 1
            ask_for_too_much()
        return step(active, longest)

    with patch.object(scheduler.step_runner, "step", scarce_step):
        codes = codes_of(scheduler, [fixed_request(voice, n, 2) for n in range(60)])
    assert len(codes) == 60
    # At the start, then after 8, 16 and 32 segments.
    assert failures == 4


def test_without_memory_for_more_slots_the_current_number_goes_on(
    tiny: Path, voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = make_scheduler(tiny, 4)
    with never_fits(scheduler, 0), most_memory(scheduler, 2):
        results = list(scheduler.run([fixed_request(voice, n, 3) for n in range(30)]))
    assert sorted(result.request.segment for result in results if isinstance(result, SegmentCodes)) == list(
        range(1, 30)
    )
    assert scheduler.step_runner.slots == 2
    assert find_lines(capsys.readouterr().err.splitlines(), Event.NO_MEMORY_YET, slots=4, fewer=2)
