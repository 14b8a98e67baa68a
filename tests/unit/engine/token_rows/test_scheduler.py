"""The scheduler of token rows on a fake device: order, pages, failures, and what is added meanwhile."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from cloner.audio import check_codes
from cloner.engine.base import SpeechRequest, Voice
from cloner.engine.kernels.step.layout import CONTINUES, ENDED, NOT_FINITE, PAGE
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.token_rows.rows import SlotStart
from cloner.engine.token_rows.steps import Decoding
from tests.support.engine_requests import StopWhen, fixed_request, make_request, make_voice
from tests.unit.engine.token_rows.fake_device import PREFIX
from tests.unit.engine.token_rows.scheduling import codes_of, failures, make, own_noise


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_every_request_gets_exactly_one_answer_of_its_own(depth: int, slots: int, count: int) -> None:
    scheduler, _ = make(slots, pipeline_depth=depth)
    requests = [fixed_request(make_voice(n % 3), n, 1 + n % 4) for n in range(count)]
    codes = codes_of(scheduler, requests)
    assert sorted(codes) == list(range(count))
    for request in requests:
        frames = request.generation.max_new_tokens
        assert torch.equal(codes[request.segment], own_noise(request, frames)), "its own noise, its own slot"
    assert list(scheduler.run([])) == []


def test_a_free_slot_is_given_at_once_to_the_longest_that_waits(voice: Voice) -> None:
    scheduler, device = make(2, pipeline_depth=0)
    codes_of(scheduler, [fixed_request(voice, n, frames) for n, frames in enumerate([3, 9, 5, 7, 1, 4])])
    assert [steps for _, _, steps in device.starts] == [10, 8, 6, 5, 4, 2]
    assert {slot for _, slot, _ in device.starts} == {0, 1}
    began = [step for step, _, _ in device.starts]
    ended = [step for step, slots in enumerate(device.rows) if len(slots) == 1]
    assert began == sorted(began)
    assert scheduler.usage.frames == 29
    assert scheduler.usage.steps == len(device.rows)
    assert scheduler.usage.slot_steps == 2 * scheduler.usage.steps
    assert ended, "at the end one slot is left"


def test_rows_are_described_once_when_they_change_and_not_at_every_step(voice: Voice) -> None:
    scheduler, device = make(3)
    requests = [fixed_request(voice, n, frames) for n, frames in enumerate([30, 40, 20, 9, 7])]
    with patch("cloner.engine.token_rows.scheduler.Decoding.of", wraps=Decoding.of) as described:
        codes_of(scheduler, requests)
    shown = {id(slots) for slots in device.rows if slots}
    assert len(shown) < len(device.rows) / 3, "most steps have the rows of the step before"
    assert described.call_count <= len(shown) + 1, "and nothing is described that no step takes, but the empty end"


def test_a_voice_is_checked_once_a_chunk(voice: Voice) -> None:
    scheduler, _ = make(3)
    with patch("cloner.engine.token_rows.segments.check_codes", wraps=check_codes) as checked:
        codes_of(scheduler, [fixed_request(voice, n, 2) for n in range(5)])
    assert checked.call_count == 1


def test_a_reference_is_read_once_for_all_segments_and_chunks(voice: Voice) -> None:
    scheduler, device = make(3)
    requests = [fixed_request(voice, n, 2) for n in range(7)]
    texts = sum(len(request.text) - 1 for request in requests)
    codes_of(scheduler, requests)
    assert sum(device.read) == PREFIX + texts
    codes_of(scheduler, requests)
    assert sum(device.read) == PREFIX + 2 * texts


def test_a_segment_decodes_in_the_step_that_reads_the_last_of_its_prompt(voice: Voice) -> None:
    scheduler, device = make(1, pipeline_depth=0, prompt_rows=64)
    codes_of(scheduler, [fixed_request(voice, 0, 3, "x" * 10)])
    # 70 tokens of the voice, of which 64 fill the first step; the other 6 and 9 of the text in the second.
    assert device.read == [64, 15, 0, 0, 0]
    assert [len(slots) for slots in device.rows] == [0, 1, 1, 1, 1]


def test_a_text_of_one_token_is_decoded_without_reading(voice: Voice) -> None:
    scheduler, device = make(1)
    codes_of(scheduler, [fixed_request(voice, 0, 1, "x")])
    assert sum(device.read) == PREFIX


def test_end_and_cut_are_told_apart(voice: Voice) -> None:
    def status(start: SlotStart, frame: int) -> int:
        return ENDED if len(start.noise) == 10 and frame == 4 else CONTINUES

    scheduler, _ = make(2, status=status)
    answers = list(scheduler.run([fixed_request(voice, 0, 9), fixed_request(voice, 1, 3)]))
    found = {a.request.segment: (a.codes.shape[1], a.truncated) for a in answers if isinstance(a, SegmentCodes)}
    assert found == {0: (4, False), 1: (3, True)}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (make_request(make_voice(0), 1, "x" * 3000), "prompt_too_long"),
        (make_request(Voice(np.full((10, 4), 1024, dtype=np.int32), "Too high."), 1), "bad_reference"),
        (make_request(make_voice(0), 1, max_new_tokens=1000), "out_of_memory"),
    ],
    ids=["too long", "outside the codebook", "more pages than there are"],
)
def test_a_request_that_cannot_be_spoken_fails_alone(request_: SpeechRequest, code: str) -> None:
    scheduler, _ = make(2)
    answers = list(scheduler.run([make_request(make_voice(1), 0), request_, make_request(make_voice(1), 2)]))
    assert failures(answers) == [(1, code)]
    assert len(answers) == 3
    assert failures(list(scheduler.run([request_]))) == [(1, code)], "also where nothing else runs"


def test_a_segment_whose_logits_are_not_finite_fails_alone_and_its_pages_are_cleared(voice: Voice) -> None:
    def status(start: SlotStart, frame: int) -> int:
        return NOT_FINITE if len(start.noise) == 8 and frame == 2 else CONTINUES

    scheduler, device = make(2, status=status)
    starts: dict[int, SlotStart] = {}
    admit = device.admit
    device.admit = lambda slot, start: (starts.update({len(start.noise): start}), admit(slot, start))[1]  # type: ignore[method-assign]
    requests = [fixed_request(voice, n, frames) for n, frames in enumerate([5, 7, 4, 3])]
    answers = list(scheduler.run(requests))
    assert failures(answers) == [(1, "generation_failed")]
    assert len(answers) == 4
    own = starts[8].own_pages
    assert device.cleared[: len(own)] == own
    # Its voice's prefix may hold the reason: those who use it go on with it, and the next reads it anew.
    assert sum(device.read) >= 2 * PREFIX
    assert device.cleared[len(own) :] == list(starts[8].prefix_pages)


def test_a_segment_waits_until_its_pages_are_free_and_unused_references_make_room() -> None:
    scheduler, device = make(4, pages_each=3)  # twelve pages: two of a voice, and two of a segment of 66 frames
    requests = [fixed_request(make_voice(n), n, 66, "x" * 10) for n in range(6)]
    assert sorted(codes_of(scheduler, requests)) == list(range(6))
    assert max(len(slots) for slots in device.rows) == 3
    assert len(scheduler.pool.prefixes) == 3


def test_a_long_segment_among_usual_ones_needs_no_slot_of_another_kind(voice: Voice) -> None:
    scheduler, _ = make(3, pages_each=6)
    requests = [fixed_request(voice, 0, 15 * PAGE - 10, "x" * 10), *(fixed_request(voice, n, 3) for n in range(1, 6))]
    assert {n: codes.shape[1] for n, codes in codes_of(scheduler, requests).items()}[0] == 15 * PAGE - 10


def test_what_is_stopped_is_dropped_within_a_step_and_the_next_chunk_begins_anew(voice: Voice) -> None:
    scheduler, device = make(2)
    requests = [fixed_request(voice, n, 5) for n in range(6)]
    observer = StopWhen(lambda: scheduler.usage.steps >= 9)
    answers = list(scheduler.run(requests, observer))
    assert scheduler.usage.steps == 9
    assert len(answers) == 1, "the other may have been finished by the last step, and no answer is drawn after a stop"
    assert observer.started_segments[:2] == [0, 1]
    assert sorted(codes_of(scheduler, requests)) == list(range(6))
    assert device.resets == 1


def test_closing_the_answers_early_stops(voice: Voice) -> None:
    scheduler, device = make(2)
    answers = scheduler.run([fixed_request(voice, n, 3) for n in range(6)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    steps = len(device.rows)
    assert sorted(codes_of(scheduler, [fixed_request(voice, 7, 2)])) == [7]
    assert len(device.rows) > steps


def test_a_request_that_is_dropped_is_not_begun_and_has_no_answer() -> None:
    scheduler, _ = make(2)
    observer = StopWhen(unwanted=frozenset({1, 3}))
    codes = codes_of(scheduler, [fixed_request(make_voice(0), n, 4) for n in range(5)], observer)
    assert sorted(codes) == sorted(observer.started_segments) == [0, 2, 4]
