"""Requests that are added while an engine works on a chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import pytest
import torch

from cloner.engine.base import ChunkObserver, RequestQueue, SegmentAudio, SegmentFailure, SpeechRequest, Voice
from cloner.engine.batched import BatchedEngine
from cloner.engine.fake import FakeEngine
from cloner.engine.pipeline import Options
from cloner.engine.segment import SegmentCodes, SlotUsage
from tests.support.engine_requests import CPU, StopWhen, fixed_request, loaded, make_scheduler, make_voice

from .row_scheduling import make as make_row_scheduler

SLOTS = 8


class AnyScheduler(Protocol):
    """That of a CPU, or of a GPU."""

    usage: SlotUsage

    def run(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = ...
    ) -> Iterator[SegmentCodes | SegmentFailure]: ...


SchedulerMaker = Callable[[int], AnyScheduler]


@pytest.fixture(params=["rows", "slots"])
def make(request: pytest.FixtureRequest) -> SchedulerMaker:
    if request.param == "rows":
        return lambda slots: make_row_scheduler(slots)[0]
    tiny: Path = request.getfixturevalue("tiny")
    return lambda slots: make_scheduler(tiny, slots)


@pytest.fixture
def voice() -> Voice:
    return make_voice(0)


def number(answer: SegmentCodes | SegmentFailure) -> int:
    assert isinstance(answer, SegmentCodes), answer
    return answer.request.segment


def test_requests_are_added_while_others_run(make: SchedulerMaker, voice: Voice) -> None:
    queue = RequestQueue([fixed_request(voice, 0, 2)])
    seen = []
    for answer in make(4).run(queue):
        seen.append(number(answer))
        if len(seen) < 4:
            queue.add(fixed_request(voice, len(seen), 2 + 500 * (len(seen) == 2)))  # one needs a longer slot
        else:
            queue.close()
    assert seen == [0, 1, 2, 3]


def test_with_nothing_left_it_waits_and_takes_no_step(make: SchedulerMaker, voice: Voice) -> None:
    scheduler, steps = make(2), []

    class Watched(RequestQueue):
        def wait(self) -> bool:
            steps.append(scheduler.usage.steps)
            if len(steps) == 2:
                self.add(fixed_request(voice, 1, 2))
            elif len(steps) == 3:
                self.close()
            return super().wait()

    assert [number(answer) for answer in scheduler.run(Watched([fixed_request(voice, 0, 2)]))] == [0, 1]
    assert steps[0] == steps[1] < steps[2]


def test_a_stop_ends_the_wait(make: SchedulerMaker, voice: Voice) -> None:
    stopped = Event()

    class Watched(RequestQueue):
        def wait(self) -> bool:
            stopped.set()
            return super().wait()

    queue = Watched([fixed_request(voice, 0, 2)])
    assert [number(answer) for answer in make(2).run(queue, StopWhen(stopped.is_set))] == [0]


def test_attempts_again_of_one_segment_in_twenty_leave_the_slots_as_full(make: SchedulerMaker, voice: Voice) -> None:
    """Each has the length of its segment, and is added when the next segment is there, or nothing runs."""
    requests = [fixed_request(voice, n, 6 + 7 * n % 43) for n in range(16 * SLOTS)]  # their lengths spread 1:8

    def occupancy(failing: frozenset[int]) -> float:
        scheduler, left, again = make(SLOTS), len(requests), list[SpeechRequest]()

        class Watched(RequestQueue):
            def wait(self) -> bool:
                if again:
                    self.add(again.pop())
                return super().wait()

        queue = Watched(requests)
        for answer in scheduler.run(queue):
            assert isinstance(answer, SegmentCodes)
            if again:
                queue.add(again.pop())
            if answer.request.segment in failing:
                again.append(replace(answer.request, segment=-1))
            else:
                left -= 1
            if not left:
                queue.close()
        return scheduler.usage.occupancy

    failing = frozenset(range(0, len(requests), 20))
    assert occupancy(failing) > occupancy(frozenset()) - 0.03


def test_a_queue_gives_what_is_added_before_the_rest(voice: Voice) -> None:
    queue = RequestQueue(fixed_request(voice, n, 2) for n in range(4))
    drawn = iter(queue)
    assert next(drawn).segment == 0
    queue.add(fixed_request(voice, 8, 2))
    queue.add(fixed_request(voice, 9, 2))
    assert [request.segment for request in queue.next_group(3)] == [8, 9, 1]
    queue.close()
    assert [request.segment for request in drawn] == [2, 3]


@pytest.mark.parametrize("slots", [1, 3])
def test_the_fake_engine_waits_for_what_is_added_by_another_thread(voice: Voice, slots: int) -> None:
    queue = RequestQueue(fixed_request(voice, n, 2) for n in range(slots))

    def add() -> None:
        queue.add(fixed_request(voice, 9, 2))
        queue.close()

    seen = []
    for answer in FakeEngine(slots=slots).speak(queue):
        seen.append(answer.segment)
        if len(seen) == slots:
            Thread(target=add).start()
    assert seen == [*range(slots), 9]


def test_the_batched_engine_speaks_what_is_added(tiny: Path, voice: Voice) -> None:
    queue = RequestQueue([fixed_request(voice, 0, 3)])
    seen = []
    with loaded(BatchedEngine(tiny, CPU, torch.float32, Options(memory_gb=4, slots=2))) as engine:
        for answer in engine.speak(queue):
            assert isinstance(answer, SegmentAudio)
            seen.append(answer.segment)
            if len(seen) == 1:
                assert answer.codes is None
                queue.add(replace(fixed_request(voice, 1, 3), with_codes=True))
            else:
                assert answer.codes is not None
                assert answer.codes.shape == (10, 3)
                queue.close()
    assert seen == [0, 1]
