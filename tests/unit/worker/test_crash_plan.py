"""Who is spoken when after a crash, and who is given up."""

from __future__ import annotations

import pytest

from cloner.output.journal import Run
from cloner.worker.crash_plan import DEATHS, LONE_CRASHES, Turn, plan_after_crashes


def todo(*segments: int, speaker: str = "anna") -> dict[int, str]:
    return dict.fromkeys(segments, speaker)


def alone(segment: int, times: int = 1) -> list[Run]:
    return [Run(n, started={segment: True}) for n in range(times)]


def test_without_a_crash_all_are_spoken_together() -> None:
    verdict = plan_after_crashes([], todo(3, 1, 2), 0)
    assert verdict.turns == [Turn([3, 1, 2], alone=False)]
    assert (verdict.crashed, verdict.is_hopeless) == ([], False)


def test_what_was_in_hand_comes_first_and_alone() -> None:
    verdict = plan_after_crashes([Run(1, started={2: False, 5: False})], todo(1, 2, 3, 5), 4)
    assert verdict.turns == [Turn([2], alone=True), Turn([5], alone=True), Turn([1, 3], alone=False)]


def test_what_was_alone_at_a_crash_waits_for_the_others() -> None:
    dead = [Run(1, started={1: False, 2: False, 3: False}), *alone(1), *alone(2, 2)]
    verdict = plan_after_crashes(dead, todo(1, 2, 3) | todo(4, speaker="ben"), 4)
    assert verdict.turns == [Turn([4], False), Turn([3], True), Turn([2], True), Turn([1], True)]


def test_what_has_a_line_in_the_record_by_now_is_no_suspect() -> None:
    assert plan_after_crashes(alone(1, LONE_CRASHES), todo(2), 1).turns == [Turn([2], alone=False)]


@pytest.mark.parametrize("times", [LONE_CRASHES - 1, LONE_CRASHES])
def test_so_many_lone_crashes_and_no_more(times: int) -> None:
    verdict = plan_after_crashes(alone(1, times), todo(1), 1)
    assert (verdict.crashed == [1]) is (times == LONE_CRASHES)
    assert (verdict.turns == []) is (times == LONE_CRASHES)


@pytest.mark.parametrize(
    ("generated", "deaths", "hopeless"), [(7, DEATHS, True), (7, DEATHS - 1, False), (8, 99, False)]
)
def test_deaths_count_since_the_last_segment_was_generated(generated: int, deaths: int, hopeless: bool) -> None:
    dead = [*(Run(n, generated=5) for n in range(50)), *(Run(n, generated=7) for n in range(deaths))]
    assert plan_after_crashes(dead, todo(1, 2), generated).is_hopeless is hopeless


def fruitless(worker: str, deaths: int = DEATHS) -> list[Run]:
    return [Run(n, worker, generated=7) for n in range(deaths)]


def test_what_only_one_worker_has_seen_is_left_to_another_if_there_is_one() -> None:
    verdict = plan_after_crashes(fruitless("a"), todo(1, 2), 7, "a", has_others=True)
    assert (verdict.needs_second_opinion, verdict.is_hopeless) == (True, False)
    verdict = plan_after_crashes(fruitless("a"), todo(1, 2), 7, "a", has_others=False)
    assert (verdict.needs_second_opinion, verdict.is_hopeless) == (False, True)


@pytest.mark.parametrize("has_others", [True, False])
def test_another_worker_tries_for_itself_and_then_it_is_given_up(has_others: bool) -> None:
    verdict = plan_after_crashes(fruitless("a"), todo(1, 2), 7, "b", has_others=has_others)
    assert (verdict.needs_second_opinion, verdict.is_hopeless) == (False, False)
    for times in range(1, LONE_CRASHES + 1):
        verdict = plan_after_crashes(
            [*fruitless("a"), *fruitless("b", times)], todo(1, 2), 7, "b", has_others=has_others
        )
        assert (verdict.needs_second_opinion, verdict.is_hopeless) == (False, times == LONE_CRASHES)


def test_a_lone_segment_that_crashes_is_left_to_another_worker_unless_others_were_generated_since() -> None:
    crashes = [Run(n, "a", generated=7, started={1: True}) for n in range(LONE_CRASHES)]
    verdict = plan_after_crashes(crashes[:-1], todo(1, 2), 7, "a", has_others=True)
    assert (verdict.needs_second_opinion, verdict.crashed) == (True, [])
    verdict = plan_after_crashes(crashes[:-1], todo(1, 2), 8, "a", has_others=True)
    assert (verdict.needs_second_opinion, verdict.crashed) == (False, [])
    verdict = plan_after_crashes(crashes, todo(1, 2), 8, "a", has_others=True)
    assert (verdict.needs_second_opinion, verdict.crashed) == (False, [1])


def test_another_worker_speaks_such_a_segment_alone_and_last_and_then_gives_it_up() -> None:
    crashes = [Run(n, "a", generated=7, started={1: True}) for n in range(LONE_CRASHES - 1)]
    verdict = plan_after_crashes(crashes, todo(1, 2), 7, "b", has_others=True)
    assert (verdict.turns, verdict.crashed) == ([Turn([2], alone=False), Turn([1], alone=True)], [])
    crashes.append(Run(9, "b", generated=7, started={1: True}))
    verdict = plan_after_crashes(crashes, todo(1, 2), 7, "b", has_others=True)
    assert (verdict.needs_second_opinion, verdict.crashed) == (False, [1])


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_a_reference_that_kills_each_of_its_segments_takes_nobody_else_along(slots: int) -> None:
    """Played through: a process dies if a killer is in one of its slots, else all of a turn is generated."""
    speakers = todo(*range(20), speaker="killer") | todo(*range(20, 40))
    left, dead, crashed = dict(speakers), list[Run](), set[int]()
    for number in range(200):
        verdict = plan_after_crashes(dead, left, 40 - len(left) - len(crashed))
        crashed.update(verdict.crashed)
        left = {segment: speaker for segment, speaker in left.items() if segment not in crashed}
        if verdict.is_hopeless or not left:
            break
        run = Run(number, generated=40 - len(left) - len(crashed))
        for turn in verdict.turns:
            hands = [turn.segments[n : n + slots] for n in range(0, len(turn.segments), slots)]
            for hand in hands:
                run.started.update(dict.fromkeys(hand, turn.alone))
                if any(segment < 20 for segment in hand):
                    break
                left = {segment: speaker for segment, speaker in left.items() if segment not in hand}
            else:
                continue
            dead.append(run)
            break
    assert all(segment < 20 for segment in left), "what is given up is the killer's own"
