"""The registry, in a real Redis."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from redis import Redis

from cloner.state.keys import RedisKeys
from cloner.state.registry import Assigned, Registry, WorkerState
from tests.support.round_trips import counted_round_trips
from tests.support.workers import worker_info


def test_a_registered_worker_is_expected_before_it_loads(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    registry.register(worker_info(0))
    assert registry.workers() == [worker_info(0)]
    assert registry.workers()[0].state is WorkerState.LOADING


def test_workers_come_box_by_box_in_their_numbers_order(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    for info in (worker_info(10, "b"), worker_info(2), worker_info(10), worker_info(1, "b")):
        registry.register(info)
    assert [(info.box, info.index) for info in registry.workers()] == [("a", 2), ("a", 10), ("b", 1), ("b", 10)]


def test_a_worker_without_heartbeats_counts_as_gone_until_it_beats_again(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    registry.register(worker_info(0))
    redis.zincrby(RedisKeys("test").workers, -29, "cpu.0@a")
    assert registry.workers() == [worker_info(0)]
    redis.zincrby(RedisKeys("test").workers, -2, "cpu.0@a")
    assert registry.workers() == []
    assert registry.get("cpu.0@a") == worker_info(0)
    assert registry.beat("cpu.0@a")
    assert registry.workers() == [worker_info(0)]


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_a_wrong_clock_hides_no_worker(redis: Redis, monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    right = time.time
    registry.register(worker_info(0))
    monkeypatch.setattr(time, "time", lambda: right() + ahead_s)
    assert registry.workers() == [worker_info(0)]
    registry.beat("cpu.0@a")
    monkeypatch.undo()
    assert registry.workers() == [worker_info(0)]


def test_a_heartbeat_carries_how_far_the_worker_has_come(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    registry.register(worker_info(0))
    registry.beat("cpu.0@a", steps=17)
    registry.beat("cpu.0@a")
    assert registry.workers() == [replace(worker_info(0), steps=17)]


def test_registering_again_forgets_what_was_known(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    registry.register(worker_info(0))
    registry.count_load("cpu.0@a")
    registry.count_load("cpu.0@a")
    registry.update("cpu.0@a", state=WorkerState.READY, error="none", slots=8)
    assert registry.get("cpu.0@a") == replace(worker_info(0), state=WorkerState.READY, error="none", slots=8, loads=2)
    registry.register(worker_info(0))
    assert registry.get("cpu.0@a") == worker_info(0)


def test_a_removed_worker_leaves_nothing_but_the_name_of_its_queue(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    registry.register(worker_info(0))
    registry.remove("cpu.0@a")
    assert registry.workers() == []
    assert registry.get("cpu.0@a") is None
    assert redis.keys("*") == [RedisKeys("test").worker_queues]
    assert redis.hgetall(RedisKeys("test").worker_queues) == {"queue-a-0": "cpu.0@a"}
    assert not registry.beat("cpu.0@a")


def test_what_is_left_of_a_lost_entry_is_no_worker(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    registry.register(worker_info(0))
    redis.flushall()
    registry.update("cpu.0@a", state=WorkerState.READY)
    registry.beat("cpu.0@a")
    assert registry.get("cpu.0@a") is None
    assert registry.workers() == []


def test_fleets_on_one_redis_do_not_see_each_other(redis: Redis) -> None:
    Registry(redis, RedisKeys("one"), alive_s=30).register(worker_info(0))
    assert Registry(redis, RedisKeys("other"), alive_s=30).workers() == []


def test_any_number_of_assignments_takes_two_round_trips_and_an_earlier_one_stays(redis: Redis) -> None:
    registry = Registry(redis, RedisKeys("test"), alive_s=30)
    infos = [worker_info(index, f"box{index % 5}") for index in range(50)]
    for info in infos:
        registry.register(info)
    registry.assign({infos[3].name: Assigned("first/0", 1, 2)})
    with counted_round_trips(redis) as trips:
        registry.assign({info.name: Assigned(f"second/{n}", 7, 70 + n) for n, info in enumerate(infos)})
    assert trips.count == 2
    found = [
        (info.assignment, info.assigned_speakers, info.assigned_texts)
        for info in map(registry.get, (i.name for i in infos))
        if info
    ]
    expected = [(f"second/{n}", 7, 70 + n) for n in range(50)]
    expected[3] = ("first/0", 1, 2)
    assert found == expected
