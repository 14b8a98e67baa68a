from __future__ import annotations

from launcher.managed_process import Backoff


def test_delays_double_up_to_a_minute() -> None:
    backoff = Backoff()

    assert [backoff.delay_s(ran_s=0.1) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_delay_is_one_second_again_after_a_start_that_ran_for_ten() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(ran_s=59.9)

    assert [backoff.delay_s(ran_s=10.0), backoff.delay_s(ran_s=0.1)] == [1, 2]
