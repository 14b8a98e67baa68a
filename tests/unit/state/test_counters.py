"""Counters of what workers have done."""

from __future__ import annotations

from redis import Redis

from cloner.state.counters import Count, Counters, failed_check
from cloner.state.keys import RedisKeys


def test_counts_grow_worker_by_worker(redis: Redis) -> None:
    counts = Counters(redis, RedisKeys("test"))
    assert counts.read() == {}
    counts.add("cpu.0@box", {Count.FRAMES: 10, Count.AUDIO_S: 0.5})
    counts.add("cpu.0@box", {Count.FRAMES: 5, Count.AUDIO_S: 0.25})
    counts.add("cpu.1@box", {Count.LOADS: 1})
    read = counts.read()
    assert (read["cpu.0@box"][Count.FRAMES], read["cpu.0@box"][Count.AUDIO_S]) == (15, 0.75)
    assert (read["cpu.1@box"][Count.LOADS], read["cpu.1@box"][Count.FRAMES]) == (1, 0)
    assert Counters(redis, RedisKeys("other")).read() == {}


def test_failures_are_counted_by_check(redis: Redis) -> None:
    counts = Counters(redis, RedisKeys("test"))
    counts.add("cpu.0@box", {failed_check("pause"): 2, Count.SUSPECTS: 1})
    counts.add("cpu.0@box", {failed_check("pause"): 1, failed_check("loop"): 1})
    read = counts.read()["cpu.0@box"]
    assert (read[failed_check("pause")], read[failed_check("loop")], read[Count.SUSPECTS]) == (3, 1, 1)


def test_what_another_version_counts_is_passed_over(redis: Redis) -> None:
    redis.hset(RedisKeys("test").counters, "cpu.0@box songs", "3")
    assert Counters(redis, RedisKeys("test")).read() == {}
