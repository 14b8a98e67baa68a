"""Requests that are added while an engine works on a chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import numpy as np
import pytest
import torch

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.client.assignment import SEGMENTS_PER_SLOT
from cloner.engine.base import ChunkObserver, RequestQueue, SegmentAudio, SegmentFailure, SpeechRequest, Voice
from cloner.engine.batched import BatchedEngine
from cloner.engine.fake import FakeEngine
from cloner.engine.pipeline import Options
from cloner.engine.segment_codes import SegmentCodes, SlotUsage
from cloner.engine.slots.decoder import RUNNING, Decoder
from cloner.engine.token_rows.device import PROMPT_BUCKETS
from tests.support.engine_requests import CPU, StopWhen, fixed_request, loaded, make_scheduler, make_voice
from tests.unit.engine.token_rows.scheduling import make as make_row_scheduler

SLOTS = 8

CHECKING = 3
"""Steps until an attempt is checked."""


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


def occupancy(scheduler: AnyScheduler, requests: list[SpeechRequest], failing: frozenset[int]) -> float:
    """How full the slots are where some segments are attempted again. Each such request has the length of its segment,
    and is added when `CHECKING` more steps are taken, or nothing runs."""
    left, again = len(requests), deque[tuple[int, SpeechRequest]]()

    class Checked(RequestQueue):
        def take(self) -> list[SpeechRequest]:
            while again and again[0][0] <= scheduler.usage.steps:
                self.add(again.popleft()[1])
            return super().take()

        def wait(self) -> bool:
            while again:
                self.add(again.popleft()[1])
            return super().wait()

    queue = Checked(requests)
    for answer in scheduler.run(queue):
        if number(answer) in failing:
            again.append((scheduler.usage.steps + CHECKING, replace(requests[number(answer)], segment=-1)))
        else:
            left -= 1
        if not left:
            queue.close()
    return scheduler.usage.occupancy


def lengths(count: int, random: np.random.Generator) -> list[int]:
    """Frames of segments: their lengths spread 1:8."""
    return [int(frames) for frames in random.integers(6, 48, count, endpoint=True)]


@pytest.mark.parametrize("seed", range(3))
def test_attempts_again_of_one_segment_in_twenty_leave_the_slots_as_full(
    make: SchedulerMaker, voice: Voice, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # What they compute does not matter, and takes a CPU a minute.
    monkeypatch.setattr(Decoder, "prefill", lambda *_: True)
    monkeypatch.setattr(Decoder, "step", lambda decoder, *_: decoder.status.fill_(RUNNING))
    random = np.random.default_rng(seed)
    frames = lengths(SEGMENTS_PER_SLOT * SLOTS, random)
    requests = [fixed_request(voice, n, length) for n, length in enumerate(frames)]
    failing = frozenset(random.choice(len(requests), len(requests) // 20, replace=False).tolist())
    assert occupancy(make(SLOTS), requests, failing) > occupancy(make(SLOTS), requests, frozenset()) - 0.03


@pytest.mark.parametrize("slots", [64, 128])
@pytest.mark.parametrize("seed", range(2))
def test_so_they_do_with_as_many_slots_as_workers_have_where_lengths_are_estimates(
    voice: Voice, slots: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    frames = lengths(SEGMENTS_PER_SLOT * slots, random)
    # Within 30%, and halved: a request's own limit would cut an estimate that is too high.
    characters = [round(n * random.uniform(0.7, 1.3) / 2 / FRAMES_PER_CHARACTER) for n in frames]
    requests = [
        fixed_request(voice, n, length, "x" * max(1, text))
        for n, (length, text) in enumerate(zip(frames, characters, strict=True))
    ]
    failing = frozenset(random.choice(len(requests), len(requests) // 20, replace=False).tolist())

    def scheduler() -> AnyScheduler:
        return make_row_scheduler(slots, prompt_rows=PROMPT_BUCKETS[-1])[0]

    assert occupancy(scheduler(), requests, failing) > occupancy(scheduler(), requests, frozenset()) - 0.03


def test_an_attempt_again_goes_before_shorter_ones_and_those_as_long(voice: Voice) -> None:
    added = {0: fixed_request(voice, 7, 5), 1: fixed_request(voice, 8, 7)}
    queue = RequestQueue([fixed_request(voice, n, frames) for n, frames in enumerate([9, 8, 5, 5, 2])])
    order = []
    for answer in make_row_scheduler(1, pipeline_depth=0)[0].run(queue):
        order.append(number(answer))
        if again := added.pop(order[-1], None):
            queue.add(again)
        if len(order) == 7:
            queue.close()
    assert order == [0, 1, 8, 7, 2, 3, 4]


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
