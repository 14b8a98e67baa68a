"""Who is spoken when after a crash, and who is given up."""

from __future__ import annotations

import pytest

from cloner.journal import Run
from cloner.worker.suspects import DEATHS, LONE_CRASHES, Turn, judge


def alone(segment: int, times: int = 1) -> list[Run]:
    return [Run(n, started={segment: True}) for n in range(times)]


def test_without_a_crash_all_are_spoken_together() -> None:
    verdict = judge([], [3, 1, 2], 0)
    assert verdict.turns == [Turn([3, 1, 2], alone=False)]
    assert (verdict.crashed, verdict.is_hopeless) == ([], False)


def test_what_was_in_hand_comes_first_and_alone() -> None:
    verdict = judge([Run(1, started={2: False, 5: False})], [1, 2, 3, 5], 4)
    assert verdict.turns == [Turn([2], alone=True), Turn([5], alone=True), Turn([1, 3], alone=False)]


def test_what_was_alone_at_a_crash_waits_for_the_others() -> None:
    dead = [Run(1, started={1: False, 2: False, 3: False}), *alone(1), *alone(2, 2)]
    verdict = judge(dead, [1, 2, 3, 4], 4)
    assert verdict.turns == [Turn([3], True), Turn([4], False), Turn([2], True), Turn([1], True)]


def test_what_has_a_line_in_the_record_by_now_is_no_suspect() -> None:
    assert judge(alone(1, LONE_CRASHES), [2], 1).turns == [Turn([2], alone=False)]


@pytest.mark.parametrize("times", [LONE_CRASHES - 1, LONE_CRASHES])
def test_so_many_lone_crashes_and_no_more(times: int) -> None:
    verdict = judge(alone(1, times), [1], 1)
    assert (verdict.crashed == [1]) is (times == LONE_CRASHES)
    assert (verdict.turns == []) is (times == LONE_CRASHES)


@pytest.mark.parametrize(
    ("generated", "deaths", "hopeless"), [(7, DEATHS, True), (7, DEATHS - 1, False), (8, 99, False)]
)
def test_deaths_count_since_the_last_segment_was_generated(generated: int, deaths: int, hopeless: bool) -> None:
    dead = [*(Run(n, generated=5) for n in range(50)), *(Run(n, generated=7) for n in range(deaths))]
    assert judge(dead, [1, 2], generated).is_hopeless is hopeless
