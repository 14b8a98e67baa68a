"""The watch over a chunk: a cancelled batch is noticed, whatever the engine and Redis do."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from cloner.output.journal import Journal
from cloner.state.keys import RedisKeys
from cloner.worker.chunk_watch import ChunkWatch
from cloner.worker.runtime import Runtime
from tests.support.workers import BATCH_ID, Workers


@pytest.fixture
def runtime(redis: Redis, valkey_url: str, tmp_path: Path) -> Runtime:
    return Workers(redis, valkey_url, tmp_path / "out").runtime()


def make(runtime: Runtime) -> ChunkWatch:
    return ChunkWatch(runtime, BATCH_ID, Journal(runtime.outputs.root, BATCH_ID, 0, runtime.name))


def test_it_stops_by_itself_when_the_batch_is_cancelled(runtime: Runtime) -> None:
    with make(runtime) as watch:
        assert not watch.stopped()
        runtime.redis.hset(RedisKeys(runtime.settings.fleet).batch(BATCH_ID), "cancelled", "1")
        assert watch.wait(60)
        assert watch.stopped()


def test_a_redis_that_is_away_is_asked_again(runtime: Runtime) -> None:
    runtime.batches = MagicMock()
    runtime.batches.is_cancelled.side_effect = [RedisConnectionError("away"), RedisConnectionError("away"), True]
    with make(runtime) as watch:
        assert watch.wait(60)
    assert runtime.batches.is_cancelled.call_count == 3


def test_what_is_taken_in_hand_is_noted_with_its_company(runtime: Runtime) -> None:
    watch = make(runtime)
    watch._journal.begin("part-" + "0" * 32, 0)
    watch.started(1)
    watch.alone = True
    watch.started(2)
    (run,) = make(runtime)._journal.runs
    assert run.started == {1: False, 2: True}
