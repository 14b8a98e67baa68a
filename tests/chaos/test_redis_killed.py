"""Redis is killed and comes back after 15 s with its append-only file: the fleet goes on without a restart."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.processes import Launch
from tests.support.records import recorded_segments
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

AWAY_S = 15.0
"""Length of the outage: longer than a worker may be silent, and than the box's lease."""


@pytest.fixture
def settings(server: RedisServer, tmp_path: Path) -> Settings:
    fleet = f"test-{secrets.token_hex(4)}"
    return Settings(redis_url=server.url, fleet=fleet, out_dir=tmp_path / "out", engine=EngineName.FAKE)


def test_a_batch_goes_on_when_a_killed_redis_is_back(
    server: RedisServer, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.25, heartbeat_s=0.2, alive_s=6.0, hang_s=10.0)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path, [20, 20, 20, 20]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=5, texts=20)
    server.kill()
    threading.Event().wait(AWAY_S)
    server.start()
    result = batch.wait(timeout=200)
    assert (result.generated, result.failed) == (80, 0)
    assert recorded_segments(settings, batch.id) == list(range(80))
    assert [worker.loads for worker in client.fleet()] == [1, 1]
    assert fleet.find(Event.KILLING_UNHEALTHY) == fleet.find(Event.RESTARTING) == []
    assert fleet.stop() == 0


def test_a_launcher_that_waits_for_its_box_waits_for_redis_too(
    server: RedisServer, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """As after a kill of the launcher before, whose lease lasts for ten more seconds."""
    client.redis.set(RedisKeys(settings.fleet).box_lease(settings.box), "process 1 on gone 0", px=10_000)
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.BOX_IS_HELD, holder="process 1 on gone")
    server.kill()
    fleet.wait_for(Event.REGISTRY_UNREACHABLE)
    server.start()
    fleet.wait_for(Event.MODELS_LOADED)
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=100).generated == 2
