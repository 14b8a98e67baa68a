"""Reviewers in the registry, in a real Redis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from redis import Redis

from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, ReviewerInfo, WorkerState, expected_reviewer
from tests.support.workers import worker_info

KEYS = RedisKeys("test")
NAME = "reviewer-0@box"


def test_a_reviewer_is_registered_apart_from_the_workers(redis: Redis) -> None:
    registry = Registry(redis, KEYS, alive_s=30)
    registry.register(worker_info(0))
    deaf = expected_reviewer(Settings(), NAME)
    hearing = expected_reviewer(Settings(recogniser=Path("small")), "reviewer-1@box")
    for info in (hearing, deaf):
        registry.reviewer_entries.register(info)
    assert registry.reviewers() == [deaf, hearing]
    assert [info.words for info in registry.reviewers()] == [False, True]
    assert registry.workers() == [worker_info(0)]
    assert registry.worker_queues() == {worker_info(0).queue: worker_info(0).name}


def test_a_reviewer_is_alive_as_long_as_it_sends_heartbeats(redis: Redis) -> None:
    registry = Registry(redis, KEYS, alive_s=30)
    entries = registry.reviewer_entries
    entries.register(ReviewerInfo(NAME, "box", words=True))
    redis.zincrby(KEYS.reviewers, -31, NAME)
    assert registry.reviewers() == []
    assert entries.beat(NAME, steps=3)
    entries.count(NAME, "loads")
    entries.update(NAME, state=WorkerState.BUSY, heard=2)
    expected = ReviewerInfo(NAME, "box", words=True, state=WorkerState.BUSY, loads=1, steps=3, heard=2)
    assert registry.reviewers() == [expected]
    entries.give_up(NAME, "its models do not load")
    assert registry.reviewers() == []
    assert entries.get(NAME) == replace(expected, error="its models do not load")
    entries.remove(NAME)
    assert entries.all() == []


def test_an_entry_that_redis_has_lost_is_no_reviewer(redis: Redis) -> None:
    registry = Registry(redis, KEYS, alive_s=30)
    assert not registry.reviewer_entries.beat(NAME, steps=3)
    assert registry.reviewers() == []
