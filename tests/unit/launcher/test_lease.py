from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from cloner.errors import BoxTaken
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry
from launcher.lease import LAUNCHERS_KEPT_S, Lease

KEY = RedisKeys("main").box_lease("gpu-box")


class Leases:
    """Launchers of one box, and their log lines; `in_sleep` is called when one of them sleeps."""

    def __init__(self, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redis = redis
        self.lines: list[str] = []
        self.slept = 0
        self.in_sleep: Callable[[], object] = lambda: None
        monkeypatch.setattr("time.sleep", self._sleep)

    def lease(self) -> Lease:
        return Lease(Registry(self.redis, RedisKeys("main"), 30), "gpu-box", self.lines.append)

    def _sleep(self, _seconds: float) -> None:
        self.slept += 1
        self.in_sleep()


@pytest.fixture
def leases(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Leases:
    return Leases(redis, monkeypatch)


def test_a_box_is_taken_held_and_given_free(leases: Leases) -> None:
    first, second = leases.lease(), leases.lease()
    first.acquire()
    first.require()
    assert 9000 < leases.redis.pttl(KEY) <= 10_000
    second.release()
    assert leases.redis.exists(KEY)
    first.release()
    second.acquire()
    assert (leases.slept, leases.lines) == (0, [])


def test_a_launcher_that_was_killed_is_remembered_for_a_month(leases: Leases) -> None:
    key, killed, next_one = RedisKeys("main").box_launchers("gpu-box"), leases.lease(), leases.lease()
    killed.acquire()
    leases.redis.expire(key, 60)
    killed.require()
    assert LAUNCHERS_KEPT_S - 60 < leases.redis.ttl(key) <= LAUNCHERS_KEPT_S
    leases.redis.delete(KEY)
    next_one.acquire()
    assert next_one.predecessors() == {killed.name}


def test_a_box_of_another_live_launcher_is_refused_and_the_error_names_the_setting(leases: Leases) -> None:
    first = leases.lease()
    first.acquire()
    leases.redis.pexpire(KEY, 5000)
    leases.in_sleep = first.require
    with pytest.raises(BoxTaken, match=r'box "gpu-box" \(process \d+ on .*\): .* with CLONER_BOX') as refusal:
        leases.lease().acquire()
    assert refusal.value.exit_code == 2
    assert leases.slept == 1


def test_a_dead_launchers_lease_is_waited_for_until_it_expires(leases: Leases) -> None:
    leases.lease().acquire()
    leases.redis.pexpire(KEY, 60_000)
    leases.in_sleep = lambda: leases.redis.delete(KEY) if leases.slept == 5 else None
    leases.lease().acquire()
    assert leases.slept == 5
    assert len(leases.lines) == 1
    assert "waiting whether it lives" in leases.lines[0]


def test_a_servers_clock_that_is_put_back_is_no_renewal_and_makes_no_wait_longer(leases: Leases) -> None:
    leases.lease().acquire()

    def put_back() -> None:
        leases.redis.pexpire(KEY, 3_600_000 if leases.slept == 1 else 0)

    # The same moment, before and after the server's clock is put back by an hour.
    times = iter([(10_000, 0), (6_410, 0)])
    leases.redis.set_response_callback("TIME", lambda _: next(times))
    leases.in_sleep = put_back
    second = leases.lease()
    second.acquire(longest_s=30)
    assert leases.slept == 2


def test_a_lease_that_redis_has_lost_is_taken_again_unless_another_launcher_has_it(leases: Leases) -> None:
    first, second = leases.lease(), leases.lease()
    first.acquire()
    leases.redis.delete(KEY)
    first.require()
    leases.redis.delete(KEY)
    second.acquire()
    with pytest.raises(BoxTaken, match=r"another launcher has taken over box .*; this one's workers are stopped"):
        first.require()


def test_a_launcher_knows_the_leases_of_those_that_have_not_given_the_box_free(leases: Leases) -> None:
    killed, ended, present = leases.lease(), leases.lease(), leases.lease()
    killed.acquire()
    leases.redis.delete(KEY)
    ended.acquire()
    ended.release()
    present.acquire()
    assert present.predecessors() == {killed.name}
    present.forget(present.predecessors())
    assert present.predecessors() == set()
    assert leases.lease().predecessors() == {present.name}
