"""Waiting clients learn of a fleet that is gone, and of a cancelled batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cloner import Client
from cloner.errors import BatchBroken
from cloner.events import Event
from cloner.settings import Settings, WorkerSettings
from cloner.state.registry import Registry, expected_worker
from tests.support.batches import write_batch
from tests.support.fixtures import Alone
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, environment
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


def waiting(settings: Settings, folder: Path, batch_id: str) -> LoggedProcess:
    return LoggedProcess([sys.executable, "-m", "cloner", "wait", batch_id], environment(settings), folder)


def expect_worker(client: Client, settings: Settings) -> str:
    """Register a worker that never starts; returns its name."""
    info = expected_worker(settings, WorkerSettings())
    Registry(client.redis, client.keys, settings.alive_s).register(info)
    return info.name


def test_who_waits_is_told_that_no_worker_is_there_and_that_one_is_back(
    alone: Alone, client: Client, settings: Settings, tmp_path: Path
) -> None:
    alone("cloner.collector")
    name = expect_worker(client, settings)
    batch = client.submit(write_batch(tmp_path, [5]))
    Registry(client.redis, client.keys, settings.alive_s).remove(name)
    wait = waiting(settings, tmp_path, batch.id)
    wait.wait_for(Event.NO_WORKER_ALIVE)
    alone("cloner.worker", fake_segment_s=2.0)  # so that whoever waits has time to look
    wait.wait_for(Event.WORKERS_ALIVE_AGAIN, workers=1)
    assert wait.wait() == 0
    assert len(wait.find(Event.NO_WORKER_ALIVE)) == 1


def test_who_waits_is_told_that_no_collector_is_there(
    alone: Alone, client: Client, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"alive_s": 3.0, "heartbeat_s": 0.2})
    alone("cloner.worker", alive_s=3.0, heartbeat_s=0.2).wait_for(Event.MODELS_LOADED)
    batch = Client(settings=settings).submit(write_batch(tmp_path, [2]))
    wait = waiting(settings, tmp_path, batch.id)
    wait.wait_for(Event.NO_COLLECTOR_ALIVE)
    alone("cloner.collector", alive_s=3.0, heartbeat_s=0.2)
    assert wait.wait() == 0
    assert wait.find(Event.BATCH_FINISHED, generated=2, total=2)


def test_a_cancelled_batch_whose_workers_are_gone_is_closed(
    alone: Alone, client: Client, settings: Settings, tmp_path: Path
) -> None:
    alone("cloner.collector")
    name = expect_worker(client, settings)
    batch = client.submit(write_batch(tmp_path, [3]))
    eventually(lambda: batch.progress().state == "running")
    Registry(client.redis, client.keys, settings.alive_s).remove(name)
    batch.cancel()
    result = batch.wait(timeout=100)
    assert (result.cancelled, result.generated, result.failed) == (True, 0, 3)


def test_a_batch_that_is_cancelled_before_it_is_opened_is_never_queued(
    alone: Alone, client: Client, settings: Settings, tmp_path: Path
) -> None:
    expect_worker(client, settings)
    batch = client.submit(write_batch(tmp_path, [3]))
    batch.cancel()
    alone("cloner.collector")
    assert batch.wait(timeout=100).cancelled
    (worker,) = client.fleet()
    assert client.redis.llen(worker.queue) == 0


def test_a_batch_that_is_cancelled_while_the_fleet_is_stopped_stays_so(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [100, 50]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=100)
    fleet.stop()
    there = recorded_segments(settings, batch.id)
    batch.cancel()
    # Without a collector there is no result, and the wait ends.
    impatient = Client(settings=settings.model_copy(update={"alive_s": 2.0}))
    with pytest.raises(BatchBroken, match=f"batch {batch.id} is cancelled, and no process is alive"):
        impatient.batch(batch.id).wait(timeout=100)

    launch("--workers", "1")
    result = batch.wait(timeout=100)
    assert result.cancelled
    assert sorted(result.results) == there == recorded_segments(settings, batch.id)
    assert len(there) >= 5
    assert {error.code for error in result.errors.values()} == {"cancelled"}
    assert all((settings.out_dir / output).exists() for output in result.results.values())
    # The cancelled batch does not block the next, and finished segments are not generated again.
    again = client.submit(write_batch(tmp_path, [100, 50])).wait(timeout=100)
    assert (again.generated, again.reused) == (150, len(there))
