"""Redis answers, and refuses commands for a time: after a failover, without memory, or without enough replicas."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from tests.support.batches import write_batch
from tests.support.fleet_processes import fleet_processes
from tests.support.polling import eventually
from tests.support.processes import Launch
from tests.support.records import recorded_segments
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

BALLAST = "ballast"

FILL = "for _ = 1, 64 do redis.call('RPUSH', KEYS[1], string.rep('x', 1048576)) end"

REFUSALS: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object]]] = {
    "READONLY": (lambda redis: redis.replicaof("127.0.0.1", "1"), lambda redis: redis.replicaof("NO", "ONE")),
    "OOM": (lambda redis: redis.config_set("maxmemory", 1), lambda redis: redis.config_set("maxmemory", 0)),
    "NOREPLICAS": (
        lambda redis: redis.config_set("min-replicas-to-write", 1),
        lambda redis: redis.config_set("min-replicas-to-write", 0),
    ),
}
"""How a server comes to refuse writes, and how it ends."""


@pytest.fixture
def settings(server: RedisServer, tmp_path: Path) -> Settings:
    fleet = f"test-{secrets.token_hex(4)}"
    return Settings(redis_url=server.url, fleet=fleet, out_dir=tmp_path / "out", engine=EngineName.FAKE)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_idle_fleet_waits_until_redis_takes_writes_again(
    refusal: str, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    begin, end = REFUSALS[refusal]
    fleet = launch("--workers", "1", heartbeat_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)
    before = {found.process.pid for found in fleet_processes(settings.fleet)}
    begin(client.redis)
    fleet.wait_for(Event.REGISTRY_UNREACHABLE)
    if refusal != "OOM":  # without memory, what processes do while they wait is not refused
        fleet.wait_for(Event.REDIS_AWAY, child="Worker 0")
        fleet.wait_for(Event.REDIS_AWAY, child="Collector")
    # Several turns of the launcher, of which each reads what it may; longer than Celery waits until it tries again.
    reads = client.redis.info("commandstats")["cmdstat_get"]["calls"]
    eventually(lambda: client.redis.info("commandstats")["cmdstat_get"]["calls"] > reads + 100)
    end(client.redis)
    fleet.wait_for(Event.REGISTRY_REACHABLE)
    assert client.submit(write_batch(tmp_path, [3])).wait(timeout=100).generated == 3
    assert {found.process.pid for found in fleet_processes(settings.fleet)} == before
    assert fleet.stop() == 0
    assert [len(fleet.find(event)) for event in (Event.REGISTRY_UNREACHABLE, Event.REGISTRY_REACHABLE)] == [1, 1]
    assert not [line for line in fleet.lines if "Traceback" in line or "Unrecoverable" in line or "consumer" in line], (
        "\n".join(fleet.lines)
    )


def test_a_fleet_that_starts_waits_until_redis_takes_writes(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    begin, end = REFUSALS["READONLY"]
    begin(client.redis)
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.REGISTRY_UNREACHABLE)
    end(client.redis)
    fleet.wait_for(Event.MODELS_LOADED)
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=100).generated == 2
    assert len(fleet.find(Event.REGISTRY_UNREACHABLE)) == 1


@pytest.mark.parametrize("refusal", ["READONLY", "OOM"])
def test_a_chunk_that_ends_while_redis_refuses_writes_is_finished_in_the_same_process(
    refusal: str, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    begin, end = REFUSALS[refusal]
    fleet = launch("--workers", "1", heartbeat_s=0.2, fake_segment_s=0.25)
    fleet.wait_for(Event.MODELS_LOADED)
    before = {found.process.pid for found in fleet_processes(settings.fleet)}
    batch = client.submit(write_batch(tmp_path, [8]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, finished=1, texts=8)
    begin(client.redis)
    fleet.wait_for(Event.REDIS_RETRYING, child="Worker 0")
    end(client.redis)
    result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (8, 0)
    assert recorded_segments(settings, batch.id) == list(range(8))
    assert {found.process.pid for found in fleet_processes(settings.fleet)} == before


def test_a_batch_is_cancelled_while_redis_has_no_memory(launch: Launch, client: Client, tmp_path: Path) -> None:
    begin, end = REFUSALS["OOM"]
    fleet = launch("--workers", "1", fake_segment_s=0.25)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [40]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, finished=1, texts=40)
    begin(client.redis)
    batch.cancel()
    assert batch.progress().cancelled
    end(client.redis)
    assert batch.wait(timeout=100).cancelled


def fill(redis: Redis) -> None:
    """Have the server keep 64 MiB, and have memory for little more, until `BALLAST` is deleted."""
    redis.eval(FILL, 1, BALLAST)
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] * 1.07))


def test_chunks_without_room_in_redis_are_sent_later_and_hold_up_no_other_batch(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.25)
    fleet.wait_for(Event.MODELS_LOADED)
    fill(client.redis)
    first = client.submit(write_batch(tmp_path, [40, 3, 3], outputs="first"))
    # Nothing else is under way, so one chunk is sent.
    fleet.wait_for(Event.CHUNKS_WAIT_FOR_ROOM, batch=first.id, chunks=2)
    second = client.submit(write_batch(tmp_path, [3, 2], outputs="second"))
    fleet.wait_for(Event.CHUNKS_WAIT_FOR_ROOM, batch=second.id)
    assert not first.progress().closed
    client.redis.delete(BALLAST)
    assert second.wait(timeout=100).generated == 5
    assert first.wait(timeout=100).generated == 46
    assert recorded_segments(settings, first.id) == list(range(46))


def test_a_batch_goes_on_chunk_by_chunk_where_redis_stays_full(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    fill(client.redis)
    batch = client.submit(write_batch(tmp_path, [2, 2]))
    assert batch.wait(timeout=100).generated == 4
    assert fleet.find(Event.CHUNKS_WAIT_FOR_ROOM)
    assert recorded_segments(settings, batch.id) == list(range(4))
