from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.engine.base import SegmentFailure, SpeechRequest, Voice
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slots.decoder import split_prefills
from cloner.engine.slots.model import END, Model
from cloner.engine.slots.packed_linear import PackedLinear
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.engine.tokens import Prefill, Tokens
from tests.support.engine_requests import (
    LONG_TEXT,
    StopWhen,
    codes_of,
    fixed_request,
    make_request,
    make_scheduler,
    make_voice,
    weight_of,
)


@pytest.fixture(scope="module")
def scheduler(tiny: Path) -> SlotScheduler:
    """Four slots. A test that changes its model restores it."""
    return make_scheduler(tiny, 4)


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


@contextmanager
def changed(product: PackedLinear, change: Callable[[Tensor], object]) -> Iterator[None]:
    """Applies `change` to the product's weight within the context."""
    weight = weight_of(product)
    change(weight)
    with patch.object(product, "_weight", PackedLinear(weight)._weight):
        yield


def changed_end(scheduler: SlotScheduler, change: Callable[[Tensor], object]) -> AbstractContextManager[None]:
    """Changes the weights of the end token within the context. After a frame, only the first one has an effect."""
    return changed(scheduler.decoder.model._head, lambda weight: change(weight[END]))


def one(scheduler: SlotScheduler, request: SpeechRequest) -> SegmentCodes | SegmentFailure:
    (result,) = scheduler.run([request])
    return result


def one_spoken(scheduler: SlotScheduler, request: SpeechRequest) -> SegmentCodes:
    result = one(scheduler, request)
    assert isinstance(result, SegmentCodes), result
    return result


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 11])
def test_every_request_gets_exactly_one_result(slots: int, count: int, tiny: Path) -> None:
    scheduler = make_scheduler(tiny, slots)
    requests = [fixed_request(make_voice(n % 3), n, 1 + n % 4) for n in range(count)]
    results = list(scheduler.run(requests))
    assert sorted(result.request.segment for result in results if isinstance(result, SegmentCodes)) == list(
        range(count)
    )
    assert len(results) == count
    for result in results:
        assert isinstance(result, SegmentCodes)
        assert result.codes.shape == (10, result.request.generation.max_new_tokens)


def test_a_free_slot_is_filled_at_once_with_the_longest_waiting_segment(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 2)
    starts, rows = [], []
    start, step = scheduler.decoder.start, scheduler.step_runner.step

    def started(slot: int, position: int, how: Any) -> None:
        starts.append((scheduler.usage.steps, slot, len(how.noise)))
        start(slot, position, how)

    def stepped(active: int, longest: int) -> Any:
        rows.append(active)
        return step(active, longest)

    with patch.object(scheduler.decoder, "start", started), patch.object(scheduler.step_runner, "step", stepped):
        codes_of(scheduler, [fixed_request(voice, n, frames) for n, frames in enumerate([3, 9, 5, 7, 1, 4])])
    # Each takes one step more than it has frames, for its end.
    assert starts == [(0, 0, 10), (0, 1, 8), (8, 1, 6), (10, 0, 5), (14, 1, 4), (15, 0, 2)]
    assert rows == [2] * 17 + [1], "the last one moves to the first slot"
    assert (scheduler.usage.steps, scheduler.usage.frames) == (18, 29)
    assert scheduler.usage.occupancy == 29 / 36


def test_the_longest_text_is_estimated_to_be_the_longest_segment(scheduler: SlotScheduler, voice: Voice) -> None:
    # All are truncated at the same step, so they come in the order of their slots.
    texts = ["Short.", "The longest text of all three.", "A longer text."]
    results = list(scheduler.run(fixed_request(voice, n, 50, text) for n, text in enumerate(texts)))
    assert [result.request.segment for result in results if isinstance(result, SegmentCodes)] == [1, 2, 0]


def test_occupancy_is_zero_before_the_first_step(tiny: Path) -> None:
    assert make_scheduler(tiny, 1).usage.occupancy == 0


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_the_end_token_is_suppressed_until_the_minimum_number_of_frames(
    frames: int, scheduler: SlotScheduler, voice: Voice
) -> None:
    with changed_end(scheduler, lambda row: row[:1].fill_(1e6)):
        result = one_spoken(scheduler, make_request(voice, min_new_tokens=frames))
    assert result.codes.shape == (10, frames)
    assert not result.truncated


@pytest.mark.parametrize("sign", [1, -1])  # with one of them the end is the likeliest token after the prompt
def test_a_segment_does_not_begin_with_its_end(sign: int, scheduler: SlotScheduler, voice: Voice) -> None:
    with changed_end(scheduler, lambda row: row.fill_(sign * 1e3)):
        assert one_spoken(scheduler, make_request(voice, min_new_tokens=0)).codes.shape[1] > 0


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_a_segment_that_never_ends_is_truncated(frames: int, scheduler: SlotScheduler, voice: Voice) -> None:
    with changed_end(scheduler, lambda row: row[:1].fill_(-1e6)):
        result = one_spoken(scheduler, make_request(voice, min_new_tokens=0, max_new_tokens=frames))
    assert result.codes.shape == (10, frames)
    assert result.truncated


def test_segments_are_never_longer_than_the_codec_takes(
    scheduler: SlotScheduler, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler.decoder, "max_frames", 5)
    assert one_spoken(scheduler, make_request(voice)).codes.shape == (10, 5)


@pytest.mark.parametrize(
    ("voice", "code"),
    [
        (make_voice(0, frames=2100), "prompt_too_long"),
        (Voice(np.full((10, 4), 1024, dtype=np.int32), "Too high."), "bad_reference"),
        (Voice(np.zeros((9, 4), dtype=np.int32), "Nine codebooks."), "bad_reference"),
    ],
    ids=["too long", "outside the codebook", "nine codebooks"],
)
def test_a_request_that_cannot_be_generated_fails_alone(voice: Voice, code: str, scheduler: SlotScheduler) -> None:
    requests = [make_request(make_voice(1), n) for n in range(3)]
    requests[1] = make_request(voice, 1)
    results = list(scheduler.run(requests))
    assert [(result.segment, result.code) for result in results if isinstance(result, SegmentFailure)] == [(1, code)]
    assert [result.request.segment for result in results if isinstance(result, SegmentCodes)] == [0, 2]


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True], ids=["free shapes", "deterministic"])
def test_a_long_segment_gets_a_longer_slot_and_the_usual_slots_are_restored(
    fixed: bool, tiny: Path, voice: Voice
) -> None:
    scheduler = make_scheduler(tiny, 3, positions=128, deterministic=fixed)
    usual = [fixed_request(voice, n, 3, "Hello.") for n in range(4)]
    before = codes_of(scheduler, usual)
    assert (scheduler.decoder.cache.slots, scheduler.decoder.cache.positions) == (3, 128)
    spoken = codes_of(scheduler, [fixed_request(voice, 9, 100), *usual])
    assert (scheduler.decoder.cache.slots, scheduler.decoder.cache.positions) == (1, 256)
    assert spoken[9].shape == (10, 100)
    for codes in (spoken, codes_of(scheduler, usual)):
        assert all(np.array_equal(codes[n], before[n]) for n in range(4))
    assert (scheduler.decoder.cache.slots, scheduler.decoder.cache.positions) == (3, 128)


@pytest.mark.slow
def test_a_segment_longer_than_all_slots_together_is_refused(tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 3, positions=128)
    requests = [fixed_request(voice, 0, 400), fixed_request(voice, 1, 230, "Hello."), fixed_request(voice, 2, 3)]
    results = list(scheduler.run(requests))
    assert [(result.segment, result.code) for result in results if isinstance(result, SegmentFailure)] == [
        (0, "out_of_memory")
    ]
    assert sorted(result.request.segment for result in results if isinstance(result, SegmentCodes)) == [1, 2]


@pytest.mark.parametrize("fixed", [False, True], ids=["free shapes", "deterministic"])
def test_a_token_with_weights_of_nan_fails_its_segments_alone(fixed: bool, tiny: Path, voice: Voice) -> None:
    scheduler = make_scheduler(tiny, 2, deterministic=fixed)
    fine = [fixed_request(voice, n, 4, "Nothing wrong here.") for n in range(4)]
    before = codes_of(scheduler, fine)
    with torch.inference_mode():
        scheduler.decoder.model._embeddings[ord("~")] = torch.nan
    hit = fixed_request(make_voice(1), 9, 40, LONG_TEXT + "~ and more")
    results = list(scheduler.run([fine[0], hit, *fine[1:]]))
    (failed,) = (result for result in results if isinstance(result, SegmentFailure))
    assert (failed.segment, failed.code) == (9, "generation_failed")
    assert "the model's output is not a number" in failed.message
    spoken = {result.request.segment: result.codes for result in results if isinstance(result, SegmentCodes)}
    assert spoken.keys() == before.keys()
    for codes in (spoken, codes_of(scheduler, fine)):
        assert all(np.array_equal(codes[n], before[n]) for n in before)


def no_numbers(weight: Tensor) -> None:
    weight.fill_(torch.nan)


@pytest.mark.parametrize(
    "broken",
    [
        lambda model: changed(model.slow._layers[1].down, no_numbers),
        lambda model: changed(model._head, lambda weight: no_numbers(weight[END])),
        lambda model: changed(model.fast._layers[0].qkv, no_numbers),
        lambda model: patch.object(model, "_fast_embeddings", torch.full_like(model._fast_embeddings, torch.nan)),
        lambda model: changed(model._fast_head, lambda weight: no_numbers(weight[7])),
    ],
    ids=["slow layer", "end token", "fast layer", "fast embeddings", "fast head"],
)
def test_nan_in_any_weights_is_detected(
    broken: Callable[[Model], AbstractContextManager[object]], tiny: Path, voice: Voice
) -> None:
    scheduler = make_scheduler(tiny, 1)
    with broken(scheduler.decoder.model):
        result = one(scheduler, make_request(voice))
    assert isinstance(result, SegmentFailure)
    assert result.code == "generation_failed"


def test_a_stopped_chunk_is_dropped_and_the_next_one_is_decoded(scheduler: SlotScheduler, voice: Voice) -> None:
    requests = [fixed_request(voice, n, 5) for n in range(6)]
    before = codes_of(scheduler, requests)
    steps = scheduler.usage.steps
    results = list(scheduler.run(requests, StopWhen(lambda: scheduler.usage.steps >= steps + 7)))
    assert len(results) == 4, "only the first four were finished"
    assert scheduler.usage.steps == steps + 7
    after = codes_of(scheduler, requests)
    assert all(np.array_equal(after[n], before[n]) for n in range(6))


def test_a_prefill_that_is_stopped_ends_within_a_piece_and_starts_again_next_time(
    scheduler: SlotScheduler, voice: Voice
) -> None:
    request = make_request(voice)
    spoken = one_spoken(scheduler, request)
    pieces: list[int] = []
    prefill = scheduler.decoder._prefill_together

    def counted(prefills: list[Prefill]) -> None:
        pieces.append(sum(len(item.tokens) for item in prefills))
        prefill(prefills)

    other = make_voice(7)
    with (
        patch("cloner.engine.slots.decoder.PIECE_TOKENS", 8),
        patch.object(scheduler.decoder, "_prefill_together", counted),
    ):
        assert list(scheduler.run([make_request(other, 1)], StopWhen(lambda: len(pieces) == 3))) == []
        assert pieces == [8, 8, 8]
        one_spoken(scheduler, make_request(other, 1))  # its reference was read in part, and so not cached
        assert sum(pieces[3:]) > len(scheduler.prompts.prefix(other))
    assert torch.equal(one_spoken(scheduler, request).codes, spoken.codes)


def test_a_prompt_that_is_read_in_pieces_gives_the_same_codes(tiny: Path, voice: Voice) -> None:
    request = make_request(voice)
    whole = one_spoken(make_scheduler(tiny, 4, deterministic=True), request)
    with patch("cloner.engine.slots.decoder.PIECE_TOKENS", 7):
        in_pieces = one_spoken(make_scheduler(tiny, 4, deterministic=True), request)
    assert torch.equal(whole.codes, in_pieces.codes)


def test_split_prefills_have_all_tokens_in_order_within_the_limit() -> None:
    prefills = [
        Prefill(slot, 10 * slot, Tokens(torch.arange(size), torch.zeros(size, 10)))
        for slot, size in enumerate((5, 1, 9))
    ]
    found = [
        [(prefill.slot, prefill.start, prefill.tokens.ids.tolist()) for prefill in piece]
        for piece in split_prefills(prefills, 4)
    ]
    assert found == [
        [(0, 0, [0, 1, 2, 3])],
        [(0, 4, [4]), (1, 10, [0]), (2, 20, [0, 1])],
        [(2, 22, [2, 3, 4, 5])],
        [(2, 26, [6, 7, 8])],
    ]
