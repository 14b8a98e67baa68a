"""Redis loses all that it held, under a fleet that runs and a batch in hand: nobody restarts anything."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner import Client
from cloner.settings import EngineName, Settings
from cloner.state.keys import RedisKeys
from tests.integration.conftest import Said, Start, environment, eventually, spoken
from tests.integration.test_again import spoken_by_workers
from tests.support.batches import write_batch
from tests.support.servers import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    fleet = f"test-{secrets.token_hex(4)}"
    return Settings(redis_url=server.url, fleet=fleet, out_dir=tmp_path / "out", engine=EngineName.FAKE)


@pytest.mark.parametrize("how", ["emptied", "started anew"])
def test_the_fleet_is_there_again_and_the_batch_is_submitted_for_what_is_missing(
    how: str, server: Server, launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.2, heartbeat_s=0.5)
    fleet.wait_for("Models loaded!", 2)
    # A first one, so that nothing is done for the first time when all is lost.
    assert client.submit(write_batch(tmp_path, [1, 1], outputs="first")).wait(timeout=100).generated == 2
    before = client.fleet()
    path = write_batch(tmp_path, [10, 10, 10, 10])
    lost = client.submit(path)
    waiting = Said([sys.executable, "-m", "cloner", "wait", lost.id], environment(settings), tmp_path)
    waiting.wait_for("[Main] Progress: ")
    fleet.wait_for("progress: 5/10", 2)
    if how == "emptied":
        client.redis.flushall()
    else:
        server.kill()
        shutil.rmtree(tmp_path / "valkey")
        (tmp_path / "valkey").mkdir()
        server.start()

    assert waiting.wait() == 2
    assert waiting.lines[-1] == (
        f"no batch {lost.id} is known: ids are printed by `cloner submit`, and kept for CLONER_BATCH_TTL_S; if Redis"
        " has lost it, submit its file again: only what is missing is spoken"
    )
    eventually(lambda: [worker.name for worker in client.fleet()] == [worker.name for worker in before])
    there = spoken(settings, lost.id)
    again = client.submit(path)
    result = again.wait(timeout=100)
    assert (result.generated, result.failed) == (40, 0)
    # What was in hand is spoken to its end meanwhile.
    assert result.reused >= len(there) >= 10
    assert len(spoken_by_workers(settings, again.id)) == 40 - result.reused
    assert [worker.pid for worker in client.fleet()] == [worker.pid for worker in before]
    # The launcher has its box as before, and nothing of the lost batch stays for ever.
    assert client.redis.exists(RedisKeys(settings.fleet).box_lease(settings.box))
    left = [str(key) for key in client.redis.scan_iter(f"*{lost.id}*")]
    assert [key for key in left if client.redis.ttl(key) < 0] == []
    assert fleet.stop() == 0
    assert not [line for line in fleet.lines if "Traceback" in line or "starting it again" in line]
