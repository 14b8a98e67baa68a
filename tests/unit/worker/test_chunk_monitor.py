"""Observing a chunk: started segments are noted, and a cancellation is noticed, even during an outage of Redis."""

from __future__ import annotations

import threading
from unittest.mock import MagicMock

import pytest
from redis import ConnectionError as RedisConnectionError

from cloner.output.journal import Journal
from cloner.protocol.messages import ChunkMessage
from cloner.state.keys import RedisKeys
from cloner.worker.cancellation import Cancellation
from cloner.worker.chunk_monitor import ChunkMonitor
from cloner.worker.progress_log import ProgressLog
from cloner.worker.worker_process import WorkerProcess
from tests.support.workers import BATCH_ID


def make_journal(worker: WorkerProcess) -> Journal:
    return Journal(worker.outputs.root, BATCH_ID, 0, worker.name)


def make_monitor(
    worker: WorkerProcess,
    chunk: ChunkMessage,
    journal: Journal | None = None,
    cancellation: Cancellation | None = None,
) -> ChunkMonitor:
    log = ProgressLog(worker, chunk, worker.record(BATCH_ID))
    return ChunkMonitor(
        worker, chunk, cancellation or Cancellation(worker, BATCH_ID), journal or make_journal(worker), log
    )


def test_it_stops_when_the_batch_is_cancelled(worker: WorkerProcess, chunk: ChunkMessage) -> None:
    with Cancellation(worker, BATCH_ID) as cancellation:
        monitor = make_monitor(worker, chunk, cancellation=cancellation)
        assert not monitor.stopped()
        worker.redis.hset(RedisKeys(worker.settings.fleet).batch(BATCH_ID), "cancelled", "1")
        assert cancellation.wait(60)
        assert monitor.stopped()


def test_no_segment_starts_while_the_worker_waits_for_the_disk(worker: WorkerProcess, chunk: ChunkMessage) -> None:
    cancellation = Cancellation(worker, BATCH_ID)
    journal = make_journal(worker)
    journal.begin("part-" + "0" * 32, 0)
    monitor = make_monitor(worker, chunk, journal, cancellation)
    entered, started = threading.Event(), threading.Event()

    def start() -> None:
        entered.set()
        monitor.started(0)
        started.set()

    with cancellation.paused():
        with cancellation.paused():
            pass
        engine = threading.Thread(target=start)
        engine.start()
        assert entered.wait(60)
        (run,) = make_journal(worker).runs
        assert run.started == {}
    assert started.wait(60)
    engine.join()
    (run,) = make_journal(worker).runs
    assert run.started == {0: False}


def test_a_segment_whose_piece_starts_after_another_has_failed_is_finished(
    worker: WorkerProcess, chunk: ChunkMessage
) -> None:
    monitor = make_monitor(worker, chunk)
    monitor.started(0)
    assert monitor.unfinished == 1
    monitor.written(0)
    monitor.started(0)
    assert monitor.unfinished == 0


def test_it_checks_again_after_an_outage_of_redis(worker: WorkerProcess) -> None:
    worker.batches = MagicMock()
    worker.batches.is_ended.side_effect = [RedisConnectionError("away"), RedisConnectionError("away"), True]
    with Cancellation(worker, BATCH_ID) as cancellation:
        assert cancellation.wait(60)
    assert worker.batches.is_ended.call_count == 3


def test_a_started_segment_is_noted_in_the_journal(worker: WorkerProcess, chunk: ChunkMessage) -> None:
    journal = make_journal(worker)
    monitor = make_monitor(worker, chunk, journal)
    journal.begin("part-" + "0" * 32, 0)
    monitor.started(1)
    monitor.alone = True
    monitor.started(2)
    (run,) = make_journal(worker).runs
    assert run.started == {1: False, 2: True}


def test_a_speaker_is_logged_when_its_first_segment_starts(
    worker: WorkerProcess, chunk: ChunkMessage, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = make_monitor(worker, chunk)
    assert capsys.readouterr().err == ""
    monitor.started(0)
    monitor.started(1)
    assert capsys.readouterr().err.splitlines() == ["Processing Speaker 0 (1/1)", "This speaker has 4 texts"]
