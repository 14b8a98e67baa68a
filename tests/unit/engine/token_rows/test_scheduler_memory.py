"""The scheduler of token rows on a fake device whose memory runs out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cloner.engine.base import Voice
from cloner.engine.memory import is_out_of_memory
from cloner.engine.segment_codes import SegmentCodes
from cloner.engine.slot_backoff import ROUNDS
from cloner.engine.token_rows.device import StepRows
from cloner.engine.token_rows.scheduler import RowScheduler
from tests.support.engine_requests import fixed_request, make_voice
from tests.unit.engine.token_rows.fake_device import ask_for_too_much
from tests.unit.engine.token_rows.scheduling import codes_of, failures, make, own_noise


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


def too_many(most: int) -> Any:
    def before(rows: StepRows) -> None:
        if len(rows.slots) > most:
            ask_for_too_much()

    return before


def test_where_memory_runs_out_the_slots_are_halved_and_all_is_spoken(
    voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler, device = make(4, before_launch=too_many(1))
    codes = codes_of(scheduler, [fixed_request(voice, n, 3 + n) for n in range(3)])
    assert {n: segment.shape[1] for n, segment in codes.items()} == {n: 3 + n for n in range(3)}
    assert (device.slots, scheduler.pool.slots) == (1, 1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "Out of memory" in line]
    assert lines == ["Out of memory with 4 slots: going on with 2", "Out of memory with 2 slots: going on with 1"]


def never_fits(scheduler: RowScheduler, segment: int) -> Any:
    def before(rows: StepRows) -> None:
        if any(running.request.segment == segment for running in scheduler._running):
            ask_for_too_much()

    return before


def test_after_a_segment_that_never_fits_the_slots_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler, device = make(4)
    device.before_launch = never_fits(scheduler, 2)
    requests = [fixed_request(make_voice(n % 3), n, 3) for n in range(16)]
    answers = list(scheduler.run(requests))
    assert failures(answers) == [(2, "out_of_memory")]
    assert len(answers) == 16
    for answer in answers:
        if isinstance(answer, SegmentCodes):
            assert torch.equal(answer.codes, own_noise(answer.request, 3)), "what is begun again is as it was"
    assert device.slots == 4
    assert [line for line in capsys.readouterr().err.splitlines() if "emory" in line] == [
        "Out of memory with 4 slots: going on with 2",
        "Out of memory with 2 slots: going on with 1",
        "There may be memory again: going on with 2 slots instead of 1",
        "There may be memory again: going on with 4 slots instead of 2",
    ]


def test_where_memory_stays_scarce_more_slots_are_tried_less_and_less_often(voice: Voice) -> None:
    failed = 0

    def before(rows: StepRows) -> None:
        nonlocal failed
        if len(rows.slots) > 2:
            failed += 1
            ask_for_too_much()

    scheduler, _ = make(4, before_launch=before)
    assert len(codes_of(scheduler, [fixed_request(voice, n, 2) for n in range(80)])) == 80
    assert failed == 4, "at the start, then after 8, 16 and 32 segments"


def test_where_there_is_no_memory_for_more_slots_those_that_are_there_go_on(
    voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler, device = make(4, most_slots=2)
    device.before_launch = never_fits(scheduler, 0)
    answers = list(scheduler.run([fixed_request(voice, n, 3) for n in range(30)]))
    assert failures(answers) == [(0, "out_of_memory")]
    assert len(answers) == 30
    assert device.slots == 2
    assert "There is no memory for 4 slots yet: going on with 2" in capsys.readouterr().err


def test_where_half_of_the_slots_do_not_fit_either_fewer_are_tried(
    voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler, device = make(16, most_slots=3, before_launch=too_many(3))
    assert len(codes_of(scheduler, [fixed_request(voice, n, 3) for n in range(5)])) == 5
    assert (device.slots, scheduler.pool.slots) == (2, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "Out of memory" in line]
    assert lines == ["Out of memory with 16 slots: going on with 2"]


def test_where_the_slots_of_before_do_not_fit_any_more_fewer_are_tried(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory is taken by another process just when twice the slots are tried."""
    scheduler, device = make(4, before_launch=too_many(2))
    resize = device.resize

    def taken(slots: int) -> None:
        if slots == 4:
            device.most_slots = 1
        resize(slots)

    monkeypatch.setattr(device, "resize", taken)
    assert len(codes_of(scheduler, [fixed_request(voice, n, 2) for n in range(20)])) == 20
    assert device.slots == 1
    assert "There is no memory for 4 slots yet: going on with 1" in capsys.readouterr().err


def test_without_memory_for_one_slot_the_error_is_raised(voice: Voice) -> None:
    scheduler, _ = make(4, most_slots=0, before_launch=too_many(0))
    with pytest.raises(RuntimeError) as raised:
        list(scheduler.run([fixed_request(voice, n, 3) for n in range(2)]))
    assert is_out_of_memory(raised.value)


def test_without_any_memory_all_fail_and_none_is_tried_for_ever(voice: Voice) -> None:
    scheduler, _ = make(4, before_launch=lambda _rows: ask_for_too_much())
    answers = list(scheduler.run([fixed_request(voice, n, 5) for n in range(9)]))
    assert sorted(failures(answers)) == [(n, "out_of_memory") for n in range(9)]


def test_a_segment_too_long_for_fewer_slots_grows_them_or_fails(voice: Voice) -> None:
    for most, expected in ((4, []), (1, [(9, "out_of_memory")])):
        scheduler, device = make(4, most_slots=4)
        scheduler.pool.shrink()
        scheduler.pool.shrink()
        device.most_slots = most
        requests = [fixed_request(voice, 9, 600, "x" * 10), fixed_request(voice, 1, 3)]
        answers = list(scheduler.run(requests))
        assert failures(answers) == expected
        assert len(answers) == 2


@pytest.mark.parametrize("call", ["admit", "set_prefix"])
@pytest.mark.parametrize("times", [1, 2, 100])
def test_a_segment_in_whose_admission_memory_runs_out_is_answered_once(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    scheduler, device = make(4)
    own, calls = getattr(device, call), 0

    def too_much(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= times:
            ask_for_too_much()
        return own(*arguments)

    monkeypatch.setattr(device, call, too_much)
    answers = list(scheduler.run([fixed_request(voice, n, 3) for n in range(6)]))
    assert len(answers) == 6
    spoken = {answer.request.segment for answer in answers if isinstance(answer, SegmentCodes)}
    failed = {segment for segment, _ in failures(answers)}
    assert spoken | failed == set(range(6))
    assert failed == (set() if times < 3 else set(range(6)))


@pytest.mark.parametrize(("calls", "given_up"), [({1}, 0), ({2}, 0), ({1, 2}, 1), ({2, 3}, 1), (set(range(1, 100)), 6)])
def test_segments_for_whose_codes_there_is_no_memory_are_answered_once(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, calls: set[int], given_up: int
) -> None:
    """Two slots, whose segments end in the same step: the first may have its answer when memory runs out."""
    scheduler, device = make(2)
    own, called = device.codes, 0

    def scarce(slot: int, frames: int) -> torch.Tensor:
        nonlocal called
        called += 1
        if called in calls:
            ask_for_too_much()
        return own(slot, frames)

    monkeypatch.setattr(device, "codes", scarce)
    answers = list(scheduler.run([fixed_request(voice, n, 3) for n in range(6)]))
    spoken = [answer for answer in answers if isinstance(answer, SegmentCodes)]
    failed = [segment for segment, code in failures(answers) if code == "out_of_memory"]
    assert sorted([*failed, *(answer.request.segment for answer in spoken)]) == list(range(6))
    assert len(failed) == given_up
    assert all(torch.equal(answer.codes, own_noise(answer.request, 3)) for answer in spoken)
    assert scheduler.pool.free == scheduler.pool.slots


def test_another_error_is_not_taken_for_memory(voice: Voice) -> None:
    def before(_rows: StepRows) -> None:
        raise RuntimeError("the device is gone")

    scheduler, _ = make(2, before_launch=before)
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(scheduler.run([fixed_request(voice, 0, 3)]))


def test_the_slots_of_a_chunk_that_ended_come_back_with_the_next(voice: Voice) -> None:
    scheduler, device = make(4)
    device.before_launch = never_fits(scheduler, 0)
    assert len(list(scheduler.run([fixed_request(voice, n, 3) for n in range(1 + ROUNDS)]))) == 1 + ROUNDS
    assert device.slots == 1
    device.before_launch = lambda _rows: None
    codes_of(scheduler, [fixed_request(voice, n, 3) for n in range(3)])
    assert device.slots == 2
