"""Attempts to open a batch: those that killed the process in a row are counted."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.collector.open_attempts import MAX_DEATHS, _forget_attempts, counted_attempt
from cloner.errors import BatchBroken
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.state.open_attempts import OpenAttempts


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return Settings(redis_url=valkey_url, fleet="test")


@pytest.fixture
def attempts(redis: Redis, settings: Settings) -> OpenAttempts:
    return OpenAttempts(redis, RedisKeys(settings.fleet), f"collector@{settings.box}", 60)


def test_a_batch_is_given_up_after_so_many_deaths_in_a_row(
    redis: Redis, settings: Settings, attempts: OpenAttempts
) -> None:
    for _ in range(MAX_DEATHS):
        attempts.begin("b")  # and the process dies
    with counted_attempt(redis, settings, "another"):
        pass
    with (
        pytest.raises(BatchBroken, match="died 3 times in a row while it opened or closed the batch"),
        counted_attempt(redis, settings, "b"),
    ):
        pytest.fail("it is opened")
    assert redis.keys("*open_attempts*") == []


@pytest.mark.parametrize("error", [None, ValueError, SystemExit])
def test_an_attempt_that_the_process_survives_ends_the_row(
    redis: Redis, settings: Settings, attempts: OpenAttempts, error: type[BaseException] | None
) -> None:
    for _ in range(MAX_DEATHS - 1):
        attempts.begin("b")
    try:
        with counted_attempt(redis, settings, "b"):
            if error:
                raise error
    except (ValueError, SystemExit):
        pass
    assert attempts.begin("b") == 0


def test_a_stop_signal_ends_the_row(
    settings: Settings, attempts: OpenAttempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", settings.require_redis_url())
    monkeypatch.setenv("CLONER_FLEET", settings.fleet)
    monkeypatch.setenv("CLONER_BOX", settings.box)
    for _ in range(MAX_DEATHS):
        attempts.begin("b")
    _forget_attempts()
    assert attempts.begin("b") == 0
