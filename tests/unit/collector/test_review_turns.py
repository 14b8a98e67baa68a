"""Which batches are reviewed at once, and in which order others follow."""

from __future__ import annotations

import pytest

from cloner.collector.review_turns import LARGE, MOST_BATCHES, may_be_reviewed
from cloner.state.progress import Round

SPEAKS = Round(0)
IN_REVIEW = Round(3, (), reviews=2, to_review=10)
WAITS = Round(1, (), waits=True, to_review=10)
LARGE_IN_REVIEW = Round(3, (), reviews=2, to_review=LARGE)
LARGE_WAITS = Round(1, (), waits=True, to_review=LARGE)


def may(*rounds: Round, place: int, takes: int = 10) -> bool:
    """Whether that of the batches may be reviewed, which are in order."""
    return may_be_reviewed(str(place), takes, [(str(number), one) for number, one in enumerate(rounds)])


def test_so_many_batches_are_reviewed_at_once() -> None:
    assert may(*[IN_REVIEW] * (MOST_BATCHES - 1), SPEAKS, place=MOST_BATCHES - 1)
    assert not may(*[IN_REVIEW] * MOST_BATCHES, SPEAKS, place=MOST_BATCHES)
    assert may(*[SPEAKS] * MOST_BATCHES, SPEAKS, place=MOST_BATCHES)
    assert not may(SPEAKS, *[IN_REVIEW] * MOST_BATCHES, place=0)


def test_those_that_wait_follow_in_their_order() -> None:
    others = [IN_REVIEW] * (MOST_BATCHES - 1)
    waiting = [WAITS, WAITS, SPEAKS]
    assert may(*waiting, *others, place=0)
    assert not may(*waiting, *others, place=1)
    assert not may(*waiting, *others, place=2)
    assert may(SPEAKS, *waiting, *others, place=0)  # it was submitted before
    assert may(*waiting, *others[2:], place=2)


@pytest.mark.parametrize(
    ("rounds", "takes", "expected"),
    [
        ([LARGE_IN_REVIEW], LARGE, False),
        ([LARGE_WAITS], LARGE, False),
        ([LARGE_IN_REVIEW, LARGE_WAITS], LARGE - 1, True),
        ([IN_REVIEW, WAITS], LARGE, True),
    ],
)
def test_of_large_batches_one_is_reviewed_at_once(rounds: list[Round], takes: int, expected: bool) -> None:
    assert may(*rounds, SPEAKS, place=len(rounds), takes=takes) == expected


def test_small_batches_do_not_wait_for_large_ones_that_wait_for_another() -> None:
    large = [LARGE_WAITS] * MOST_BATCHES
    assert may(LARGE_IN_REVIEW, *large, WAITS, place=MOST_BATCHES + 1)
    assert may(*large, WAITS, place=MOST_BATCHES)
    assert not may(*large, *[IN_REVIEW] * (MOST_BATCHES - 1), WAITS, place=2 * MOST_BATCHES - 1)


def test_a_batch_that_redis_has_forgotten_is_the_last() -> None:
    rounds = [(str(number), WAITS) for number in range(MOST_BATCHES)]
    assert not may_be_reviewed("x", 1, rounds)
    assert may_be_reviewed("x", 1, rounds[1:])
