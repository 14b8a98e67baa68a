"""In which order segments are generated after crashes, and which are given up."""

from __future__ import annotations

import pytest

from cloner.output.journal import Run
from cloner.worker.crash_plan import MAX_FRUITLESS_CRASHES, MAX_LONE_CRASHES, Turn, plan_after_crashes


def pending(*segments: int, speaker: str = "anna") -> dict[int, str]:
    return dict.fromkeys(segments, speaker)


def alone(segment: int, times: int = 1) -> list[Run]:
    return [Run(n, started={segment: True}) for n in range(times)]


def test_without_a_crash_all_segments_are_generated_together() -> None:
    plan = plan_after_crashes([], pending(3, 1, 2), 0)
    assert plan.turns == [Turn([3, 1, 2], alone=False)]
    assert (plan.crashed, plan.is_hopeless) == ([], False)


def test_segments_in_flight_at_a_crash_come_first_and_alone() -> None:
    plan = plan_after_crashes([Run(1, started={2: False, 5: False})], pending(1, 2, 3, 5), 4)
    assert plan.turns == [Turn([2], alone=True), Turn([5], alone=True), Turn([1, 3], alone=False)]


def test_a_segment_alone_at_a_crash_comes_after_the_others() -> None:
    runs = [Run(1, started={1: False, 2: False, 3: False}), *alone(1), *alone(2, 2)]
    plan = plan_after_crashes(runs, pending(1, 2, 3) | pending(4, speaker="ben"), 4)
    assert plan.turns == [Turn([4], False), Turn([3], True), Turn([2], True), Turn([1], True)]


def test_a_segment_in_the_record_is_not_suspected() -> None:
    assert plan_after_crashes(alone(1, MAX_LONE_CRASHES), pending(2), 1).turns == [Turn([2], alone=False)]


@pytest.mark.parametrize("times", [MAX_LONE_CRASHES - 1, MAX_LONE_CRASHES])
def test_a_segment_is_given_up_after_the_last_allowed_lone_crash(times: int) -> None:
    plan = plan_after_crashes(alone(1, times), pending(1), 1)
    assert (plan.crashed == [1]) is (times == MAX_LONE_CRASHES)
    assert (plan.turns == []) is (times == MAX_LONE_CRASHES)


@pytest.mark.parametrize(
    ("generated", "crashes", "hopeless"),
    [(7, MAX_FRUITLESS_CRASHES, True), (7, MAX_FRUITLESS_CRASHES - 1, False), (8, 99, False)],
)
def test_crashes_count_since_the_last_segment_was_generated(generated: int, crashes: int, hopeless: bool) -> None:
    runs = [*(Run(n, generated=5) for n in range(50)), *(Run(n, generated=7) for n in range(crashes))]
    assert plan_after_crashes(runs, pending(1, 2), generated).is_hopeless is hopeless


def fruitless(worker: str, crashes: int = MAX_FRUITLESS_CRASHES) -> list[Run]:
    return [Run(n, worker, generated=7) for n in range(crashes)]


def test_crashes_that_only_one_worker_saw_need_a_second_opinion_if_there_are_others() -> None:
    plan = plan_after_crashes(fruitless("a"), pending(1, 2), 7, "a", has_others=True)
    assert (plan.needs_second_opinion, plan.is_hopeless) == (True, False)
    plan = plan_after_crashes(fruitless("a"), pending(1, 2), 7, "a", has_others=False)
    assert (plan.needs_second_opinion, plan.is_hopeless) == (False, True)


@pytest.mark.parametrize("has_others", [True, False])
def test_another_worker_tries_before_the_chunk_is_given_up(has_others: bool) -> None:
    plan = plan_after_crashes(fruitless("a"), pending(1, 2), 7, "b", has_others=has_others)
    assert (plan.needs_second_opinion, plan.is_hopeless) == (False, False)
    for times in range(1, MAX_LONE_CRASHES + 1):
        plan = plan_after_crashes(
            [*fruitless("a"), *fruitless("b", times)], pending(1, 2), 7, "b", has_others=has_others
        )
        assert (plan.needs_second_opinion, plan.is_hopeless) == (False, times == MAX_LONE_CRASHES)


def test_a_lone_crashing_segment_needs_a_second_opinion_unless_others_were_generated_since() -> None:
    crashes = [Run(n, "a", generated=7, started={1: True}) for n in range(MAX_LONE_CRASHES)]
    plan = plan_after_crashes(crashes[:-1], pending(1, 2), 7, "a", has_others=True)
    assert (plan.needs_second_opinion, plan.crashed) == (True, [])
    plan = plan_after_crashes(crashes[:-1], pending(1, 2), 8, "a", has_others=True)
    assert (plan.needs_second_opinion, plan.crashed) == (False, [])
    plan = plan_after_crashes(crashes, pending(1, 2), 8, "a", has_others=True)
    assert (plan.needs_second_opinion, plan.crashed) == (False, [1])


def test_another_worker_tries_such_a_segment_alone_and_last_before_it_is_given_up() -> None:
    crashes = [Run(n, "a", generated=7, started={1: True}) for n in range(MAX_LONE_CRASHES - 1)]
    plan = plan_after_crashes(crashes, pending(1, 2), 7, "b", has_others=True)
    assert (plan.turns, plan.crashed) == ([Turn([2], alone=False), Turn([1], alone=True)], [])
    crashes.append(Run(9, "b", generated=7, started={1: True}))
    plan = plan_after_crashes(crashes, pending(1, 2), 7, "b", has_others=True)
    assert (plan.needs_second_opinion, plan.crashed) == (False, [1])


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_a_reference_that_crashes_the_engine_fails_only_its_own_segments(slots: int) -> None:
    """Simulated: the process crashes if a segment of the killer is in a slot, else a turn is generated."""
    speakers = pending(*range(20), speaker="killer") | pending(*range(20, 40))
    left, runs, crashed = dict(speakers), list[Run](), set[int]()
    for number in range(200):
        plan = plan_after_crashes(runs, left, 40 - len(left) - len(crashed))
        crashed.update(plan.crashed)
        left = {segment: speaker for segment, speaker in left.items() if segment not in crashed}
        if plan.is_hopeless or not left:
            break
        run = Run(number, generated=40 - len(left) - len(crashed))
        for turn in plan.turns:
            groups = [turn.segments[n : n + slots] for n in range(0, len(turn.segments), slots)]
            for group in groups:
                run.started.update(dict.fromkeys(group, turn.alone))
                if any(segment < 20 for segment in group):
                    break
                left = {segment: speaker for segment, speaker in left.items() if segment not in group}
            else:
                continue
            runs.append(run)
            break
    assert all(segment < 20 for segment in left), "only the killer's segments are left"
