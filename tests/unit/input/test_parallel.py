"""Work on many files by a few threads."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Event

import pytest

from cloner.input import parallel as module
from cloner.input.parallel import parallel

LIMIT_S = 60


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 4)


def test_as_many_items_as_cores_are_worked_on_at_the_same_time() -> None:
    together = Barrier(4)
    assert list(parallel(lambda item: (together.wait(LIMIT_S), item)[1], range(8))) == list(range(8))


def test_results_come_in_the_order_of_the_items() -> None:
    last_is_done = Event()

    def work(item: int) -> int:
        if item == 0:
            assert last_is_done.wait(LIMIT_S)
        if item == 3:
            last_is_done.set()
        return item

    assert list(parallel(work, range(4))) == [0, 1, 2, 3]


def test_items_are_not_drawn_far_ahead() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            drawn.append(item)
            yield item

    results = parallel(lambda item: item, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(drawn) < 20


def test_an_error_comes_in_the_place_of_its_result_and_no_further_item_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError(item)
        return item

    results = parallel(work, range(1000))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)
    assert len(begun) < 20
