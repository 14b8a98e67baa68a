"""Observing a chunk: started segments are noted, and a cancellation is noticed, even during an outage of Redis."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from cloner.output.journal import Journal
from cloner.protocol.messages import ChunkMessage
from cloner.state.keys import RedisKeys
from cloner.worker.chunk_monitor import ChunkMonitor
from cloner.worker.progress_log import ProgressLog
from cloner.worker.runtime import Runtime
from tests.support.batches import write_batch
from tests.support.workers import BATCH_ID, Workers


@pytest.fixture
def workers(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    return Workers(redis, valkey_url, tmp_path / "out")


@pytest.fixture
def runtime(workers: Workers) -> Runtime:
    return workers.runtime()


@pytest.fixture
def chunk(workers: Workers, tmp_path: Path) -> ChunkMessage:
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    return chunk


def make_journal(runtime: Runtime) -> Journal:
    return Journal(runtime.outputs.root, BATCH_ID, 0, runtime.name)


def make_monitor(runtime: Runtime, chunk: ChunkMessage, journal: Journal | None = None) -> ChunkMonitor:
    log = ProgressLog(runtime, chunk, runtime.record(BATCH_ID))
    return ChunkMonitor(runtime, chunk, journal or make_journal(runtime), log)


def test_it_stops_when_the_batch_is_cancelled(runtime: Runtime, chunk: ChunkMessage) -> None:
    with make_monitor(runtime, chunk) as monitor:
        assert not monitor.stopped()
        runtime.redis.hset(RedisKeys(runtime.settings.fleet).batch(BATCH_ID), "cancelled", "1")
        assert monitor.wait(60)
        assert monitor.stopped()


def test_it_checks_again_after_an_outage_of_redis(runtime: Runtime, chunk: ChunkMessage) -> None:
    runtime.batches = MagicMock()
    runtime.batches.is_cancelled.side_effect = [RedisConnectionError("away"), RedisConnectionError("away"), True]
    with make_monitor(runtime, chunk) as monitor:
        assert monitor.wait(60)
    assert runtime.batches.is_cancelled.call_count == 3


def test_a_started_segment_is_noted_in_the_journal(runtime: Runtime, chunk: ChunkMessage) -> None:
    journal = make_journal(runtime)
    monitor = make_monitor(runtime, chunk, journal)
    journal.begin("part-" + "0" * 32, 0)
    monitor.started(1)
    monitor.alone = True
    monitor.started(2)
    (run,) = make_journal(runtime).runs
    assert run.started == {1: False, 2: True}


def test_a_speaker_is_logged_when_its_first_segment_starts(
    runtime: Runtime, chunk: ChunkMessage, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = make_monitor(runtime, chunk)
    assert capsys.readouterr().err == ""
    monitor.started(0)
    monitor.started(1)
    assert capsys.readouterr().err.splitlines() == ["Processing Speaker 0 (1/1)", "This speaker has 3 texts"]
