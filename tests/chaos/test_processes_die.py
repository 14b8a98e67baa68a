"""A worker, the collector or the launcher is killed by SIGKILL: the batch goes on, and nobody lingers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from cloner import Client
from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from tests.integration.conftest import Said, Start, eventually, spoken
from tests.integration.test_launcher_up import gone
from tests.support.batches import write_batch


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with connect(settings.require_redis_url()) as client:
        yield client


def processes(fleet: Said) -> list[psutil.Process]:
    """All that a launcher has started, and what those have started."""
    return psutil.Process(fleet.process.pid).children(recursive=True)


def parents(fleet: Said, module: str) -> list[psutil.Process]:
    """Celery's parents: ``python -m module``, as the launcher has started them."""
    return [child for child in psutil.Process(fleet.process.pid).children() if child.cmdline()[-1] == module]


def child(parent: psutil.Process) -> psutil.Process:
    """The process in which Celery's parent has the tasks run; its other child keeps track of semaphores."""
    (found,) = [process for process in parent.children() if "semaphore_tracker" not in " ".join(process.cmdline())]
    return found


def test_a_killed_workers_chunk_is_given_back_at_once_and_nobody_elses(
    launch: Start, client: Client, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.2, fake_load_s=2)
    fleet.wait_for("Models loaded!", 2)
    batch = client.submit(write_batch(tmp_path, [40, 40]))
    fleet.wait_for("progress: 5/40", 2)
    keys = RedisKeys(settings.fleet)
    other = client.fleet()[1]
    (tag,) = redis.hkeys(keys.unacked(other.name))

    victim = next(process for process in parents(fleet, "cloner.worker") if _index(process) == "0")
    victim.kill()
    given_back = fleet.wait_for("What Worker 0 had in hand is back in its queue: 1 unfinished")[0]
    # The chunk that the other worker speaks stays in its hand.
    assert redis.hkeys(keys.unacked(other.name)) == [tag]
    fleet.wait_for("Worker 0] ✅ Completed Speaker 0")
    # Between the death and the work that goes on, nothing is waited for but this second and the load.
    steps = [
        "Worker 0 was killed by SIGKILL (out of memory?); starting it again in 1 s",
        "Launching Worker 0",
        "Worker 0] Loading Text2Semantic model",
        "Worker 0] Models loaded!",
        "Worker 0] ✅ Completed Speaker 0",
    ]
    since = fleet.lines[fleet.lines.index(given_back) :]
    assert [step for line in since for step in steps if step in line] == steps
    assert batch.wait(timeout=100).generated == 80
    assert spoken(settings, batch.id) == list(range(80))
    assert [worker.loads for worker in client.fleet()] == [2, 1]
    assert len(fleet.wait_for("was killed by SIGKILL")) == 1
    eventually(lambda: redis.keys(f"{keys.unacked('*')}") == [])


def test_a_killed_collectors_batch_is_opened_by_the_next(
    launch: Start, client: Client, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for("Models loaded!")
    (collector,) = parents(fleet, "cloner.collector")
    holder = collector_name(settings.box)
    # Frozen, the child takes nothing further: the message is in the parent's hand and stays there.
    eventually(
        lambda: redis.hexists(
            RedisKeys(settings.fleet).process_heartbeats, RedisKeys(settings.fleet).process_heartbeat(holder, "child")
        )
    )
    child(collector).suspend()
    batch = client.submit(write_batch(tmp_path))
    eventually(lambda: redis.hlen(RedisKeys(settings.fleet).unacked(holder)) == 1)
    collector.kill()
    fleet.wait_for("What Collector had in hand is back in its queue: 1 unfinished")
    assert batch.wait(timeout=100).generated == 46
    assert spoken(settings, batch.id) == list(range(46))


def test_a_killed_launchers_workers_end_with_it_frozen_ones_too_and_the_next_launcher_goes_on(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.2)
    fleet.wait_for("Models loaded!", 2)
    batch = client.submit(write_batch(tmp_path, [30, 30]))
    fleet.wait_for("progress: 5/30", 2)
    started = processes(fleet)
    frozen = parents(fleet, "cloner.worker")[0]
    for process in (frozen, child(frozen)):
        process.suspend()
    os.kill(fleet.process.pid, signal.SIGKILL)
    fleet.wait()
    eventually(lambda: all(gone(process.pid) for process in started))

    second = launch("--workers", "2")
    second.wait_for("had in hand is back in its queue", 2)
    assert batch.wait(timeout=100).generated == 60
    assert spoken(settings, batch.id) == list(range(60))


def _index(worker: psutil.Process) -> str:
    return worker.environ()["CLONER_WORKER_INDEX"]
