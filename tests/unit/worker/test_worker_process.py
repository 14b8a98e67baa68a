"""A worker's child process between chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from cloner.cli.fleet import fleet
from cloner.engine.fake import FakeEngine
from cloner.state.keys import RedisKeys
from cloner.state.registry import Assigned, Registry
from tests.support.workers import Workers


class TestAssignmentsWhileLoading:
    @pytest.fixture
    def workers(self, redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
        workers = Workers(redis, valkey_url, tmp_path / "out")
        registry = Registry(redis, RedisKeys(workers.settings.fleet), alive_s=30)
        registry.register(workers.infos[0])
        for batch_id, speakers, texts in [("one", 2, 16), ("two", 3, 9)]:
            redis.hset(RedisKeys(workers.settings.fleet).batch(batch_id), "state", "running")
            registry.assign({workers.infos[0].name: Assigned(f"{batch_id}/0", speakers, texts)})
        return workers

    def test_the_first_of_two_is_logged_before_the_models_and_the_second_with_its_work(
        self, workers: Workers, capsys: pytest.CaptureFixture[str]
    ) -> None:
        worker = workers.start()
        worker.load()
        worker.log_assignment("one/0", 2, 16)
        worker.log_assignment("two/0", 3, 9)
        worker.log_assignment("two/0", 3, 9)
        assert capsys.readouterr().err.splitlines() == [
            "Assigned 2 speakers, 16 texts total",
            "Loading Text2Semantic model...",
            "Loading DAC model...",
            "Models loaded! Starting generation...",
            "Assigned 3 speakers, 9 texts total",
        ]

    @pytest.mark.parametrize(("field", "value"), [("state", "done"), ("state", "broken"), ("cancelled", "1")])
    def test_one_whose_batch_is_over_is_not_logged_and_makes_room(
        self, field: str, value: str, workers: Workers, capsys: pytest.CaptureFixture[str]
    ) -> None:
        workers.redis.hset(RedisKeys(workers.settings.fleet).batch("one"), field, value)
        worker = workers.start()
        worker.load()
        assert "Assigned" not in capsys.readouterr().err
        worker.registry.assign({worker.name: Assigned("two/0", 3, 9)})
        known = worker.registry.get(worker.name)
        assert known
        assert (known.assignment, known.assigned_speakers, known.assigned_texts) == ("two/0", 3, 9)


def test_a_workers_steps_are_those_of_its_engine_and_the_noted_ones(
    redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    worker = Workers(redis, valkey_url, tmp_path).start()
    worker.note_step()
    worker.note_step()
    assert worker.steps == worker.engine.steps + 2


def test_why_an_engine_is_slower_than_it_could_be_is_in_the_registry_and_in_cloner_fleet(
    redis: Redis, valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(redis, valkey_url, tmp_path)
    engine = FakeEngine()
    engine.warning = "Kernels are replaced: linear\x1b[2J"
    worker = workers.start(engine=engine)
    worker.registry.register(workers.infos[0])
    worker.load()
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    monkeypatch.setenv("CLONER_FLEET", workers.settings.fleet)
    capsys.readouterr()
    fleet()
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [rf"{worker.name}: Kernels are replaced: linear\x1b[2J"]
    assert printed.out.splitlines()[1].split("\t")[1] == worker.name
    redis.flushdb()
    worker.beat(worker.registry)  # after Redis has lost the entry
    assert [known.warning for known in worker.registry.workers()] == [r"Kernels are replaced: linear\x1b[2J"]
    engine.warning = ""
    workers.start(engine=engine).load()
    assert [known.warning for known in worker.registry.workers()] == [""]
