"""Attempts of reviewers to hear a take: what has killed one of them counts for all, whatever becomes of another."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.state.keys import RedisKeys
from cloner.state.open_attempts import ReviewAttempts

KEYS = RedisKeys("main")


class Scene:
    """Two reviewers side by side."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.first = ReviewAttempts(redis, KEYS, "reviewer-0@box", 60)
        self.second = ReviewAttempts(redis, KEYS, "reviewer-1@box", 60)


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)


def test_deaths_of_one_take_are_counted_for_all_reviewers_until_one_survives(scene: Scene) -> None:
    assert [scene.first.begin("a"), scene.second.begin("a"), scene.second.begin("b")] == [0, 1, 0]
    scene.second.end("a")
    assert [scene.first.begin("a"), scene.first.begin("b")] == [0, 1]


def test_a_stop_by_a_signal_withdraws_the_attempt_under_way_and_no_other(scene: Scene) -> None:
    scene.first.begin("a")  # and dies
    scene.second.begin("b")
    scene.second.withdraw()
    scene.second.withdraw()  # by the parent process, too
    assert scene.second.begin("a") == 1
    scene.second.withdraw()
    assert [scene.first.begin("a"), scene.first.begin("b")] == [1, 0]


def test_a_death_counts_although_the_process_that_follows_is_stopped_before_it_has_begun(scene: Scene) -> None:
    scene.first.begin("a")
    scene.first.note_death()
    scene.first.withdraw()
    assert scene.second.begin("a") == 1


def test_nothing_is_left_of_attempts_that_have_ended(scene: Scene) -> None:
    scene.first.begin("a")
    scene.first.end("a")
    scene.second.begin("b")
    scene.second.withdraw()
    assert scene.redis.keys() == []


def test_what_is_counted_expires(scene: Scene) -> None:
    scene.first.begin("a")
    assert [0 < scene.redis.ttl(key) <= 60 for key in (KEYS.review_attempts, KEYS.reviews_under_way)] == [True, True]
