"""A worker, the collector or the launcher is killed by SIGKILL: the batch goes on, and no process is left."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from cloner import Client
from cloner.events import Event
from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.polling import eventually
from tests.support.process_tree import celery_child, celery_parents, descendants, has_ended
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with connect(settings.require_redis_url()) as client:
        yield client


def test_a_killed_workers_chunk_is_requeued_at_once_and_no_other_one(
    launch: Launch, client: Client, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.2, fake_load_s=2)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path, [40, 40]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=5, texts=40)
    keys = RedisKeys(settings.fleet)
    other = client.fleet()[1]
    (tag,) = redis.hkeys(keys.unacked(other.name))

    victim = next(process for process in celery_parents(fleet, "cloner.worker") if _index(process) == "0")
    victim.kill()
    requeued = fleet.wait_for(Event.MESSAGES_REQUEUED, title="Worker 0", count=1)[0]
    # The other worker's chunk stays unacknowledged.
    assert redis.hkeys(keys.unacked(other.name)) == [tag]
    fleet.wait_for(Event.SPEAKER_COMPLETED, child="Worker 0", speaker=0)
    # Between the kill and the next segment, only the second and the load pass.
    killed = "was killed by SIGKILL (out of memory?)"
    since = fleet.lines[fleet.lines.index(requeued) :]
    steps = [
        find_lines(since, Event.RESTARTING, title="Worker 0", reason=killed, delay_s=1),
        find_lines(since, Event.LAUNCHING_WORKER, index=0),
        find_lines(since, Event.LOADING_TEXT2SEMANTIC, child="Worker 0"),
        find_lines(since, Event.MODELS_LOADED, child="Worker 0"),
        find_lines(since, Event.SPEAKER_COMPLETED, child="Worker 0", speaker=0),
    ]
    places = [since.index(line) for (line,) in steps]
    assert places == sorted(places)
    assert batch.wait(timeout=100).generated == 80
    assert recorded_segments(settings, batch.id) == list(range(80))
    assert [worker.loads for worker in client.fleet()] == [2, 1]
    assert len(fleet.find(Event.RESTARTING, reason=re.compile("was killed by SIGKILL"))) == 1
    eventually(lambda: redis.keys(f"{keys.unacked('*')}") == [])


def test_a_killed_collectors_batch_is_opened_by_the_next(
    launch: Launch, client: Client, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    (collector,) = celery_parents(fleet, "cloner.collector")
    holder = collector_name(settings.box)
    # With a frozen child, the message stays unacknowledged in the parent.
    eventually(
        lambda: redis.hexists(
            RedisKeys(settings.fleet).process_heartbeats, RedisKeys(settings.fleet).process_heartbeat(holder, "child")
        )
    )
    celery_child(collector).suspend()
    batch = client.submit(write_batch(tmp_path))
    eventually(lambda: redis.hlen(RedisKeys(settings.fleet).unacked(holder)) == 1)
    collector.kill()
    fleet.wait_for(Event.MESSAGES_REQUEUED, title="Collector", count=1)
    assert batch.wait(timeout=100).generated == 46
    assert recorded_segments(settings, batch.id) == list(range(46))


def test_a_killed_launchers_workers_end_with_it_frozen_ones_too_and_the_next_launcher_goes_on(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path, [30, 30]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=5, texts=30)
    started = descendants(fleet)
    frozen = celery_parents(fleet, "cloner.worker")[0]
    for process in (frozen, celery_child(frozen)):
        process.suspend()
    os.kill(fleet.process.pid, signal.SIGKILL)
    fleet.wait()
    eventually(lambda: all(has_ended(process.pid) for process in started))

    second = launch("--workers", "2")
    second.wait_for(Event.MESSAGES_REQUEUED, 2)
    assert batch.wait(timeout=100).generated == 60
    assert recorded_segments(settings, batch.id) == list(range(60))


def _index(worker: psutil.Process) -> str:
    return worker.environ()["CLONER_WORKER_INDEX"]
