"""A worker's process between chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry
from tests.support.workers import Workers


class TestAssignmentsWhileLoading:
    @pytest.fixture
    def workers(self, redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
        workers = Workers(redis, valkey_url, tmp_path / "out")
        registry = Registry(redis, RedisKeys(workers.settings.fleet), alive_s=30)
        registry.register(workers.infos[0])
        for batch_id, speakers, texts in [("one", 2, 16), ("two", 3, 9)]:
            redis.hset(RedisKeys(workers.settings.fleet).batch(batch_id), "state", "running")
            registry.assign(workers.infos[0].name, f"{batch_id}/0", speakers, texts)
        return workers

    def test_the_first_of_two_is_said_before_the_models_and_the_second_with_its_work(
        self, workers: Workers, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runtime = workers.runtime()
        runtime.load()
        runtime.say_assignment("one/0", 2, 16)
        runtime.say_assignment("two/0", 3, 9)
        runtime.say_assignment("two/0", 3, 9)
        assert capsys.readouterr().err.splitlines() == [
            "Assigned 2 speakers, 16 texts total",
            "Loading Text2Semantic model...",
            "Loading DAC model...",
            "Models loaded! Starting generation...",
            "Assigned 3 speakers, 9 texts total",
        ]

    @pytest.mark.parametrize(("field", "value"), [("state", "done"), ("state", "broken"), ("cancelled", "1")])
    def test_one_whose_batch_is_over_is_not_said_and_makes_room(
        self, field: str, value: str, workers: Workers, capsys: pytest.CaptureFixture[str]
    ) -> None:
        workers.redis.hset(RedisKeys(workers.settings.fleet).batch("one"), field, value)
        runtime = workers.runtime()
        runtime.load()
        assert "Assigned" not in capsys.readouterr().err
        runtime.registry.assign(runtime.name, "two/0", 3, 9)
        known = runtime.registry.get(runtime.name)
        assert known
        assert (known.assignment, known.assigned_speakers, known.assigned_texts) == ("two/0", 3, 9)


def test_a_workers_steps_are_its_engines_and_those_that_were_noted(
    redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    runtime = Workers(redis, valkey_url, tmp_path).runtime()
    runtime.note_step()
    runtime.note_step()
    assert runtime.steps == runtime.engine.steps + 2
