"""Redis loses all data while a fleet generates a batch; the fleet goes on without a restart."""

from __future__ import annotations

import secrets
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, environment
from tests.support.records import generated_by_workers, recorded_segments
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(server: RedisServer, tmp_path: Path) -> Settings:
    fleet = f"test-{secrets.token_hex(4)}"
    return Settings(redis_url=server.url, fleet=fleet, out_dir=tmp_path / "out", engine=EngineName.FAKE)


@pytest.mark.parametrize("how", ["emptied", "started anew"])
def test_the_fleet_is_there_again_and_the_batch_is_submitted_for_what_is_missing(
    how: str, server: RedisServer, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.2, heartbeat_s=0.5)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    # A first batch, so that all processes have done their work once before the loss.
    assert client.submit(write_batch(tmp_path, [1, 1], outputs="first")).wait(timeout=100).generated == 2
    before = client.fleet()
    path = write_batch(tmp_path, [10, 10, 10, 10])
    lost = client.submit(path)
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=5, texts=10)
    children = [psutil.Process(worker.pid) for worker in before]
    for child in children:
        child.suspend()  # the batch is not finished before the loss, however slowly the client starts
    waiting = LoggedProcess([sys.executable, "-m", "cloner", "wait", lost.id], environment(settings), tmp_path)
    waiting.wait_for(Event.PROGRESS)
    if how == "emptied":
        client.redis.flushall()
    else:
        server.kill()
        shutil.rmtree(tmp_path / "valkey")
        (tmp_path / "valkey").mkdir()
        server.start()
    for child in children:
        child.resume()

    assert waiting.wait() == 2
    assert waiting.lines[-1] == (
        f"no batch {lost.id} is known: ids are printed by `cloner submit`, and kept for CLONER_BATCH_TTL_S; if Redis"
        " has lost it, submit its file again: only what is missing is spoken"
    )
    eventually(lambda: [worker.name for worker in client.fleet()] == [worker.name for worker in before])
    there = recorded_segments(settings, lost.id)
    again = client.submit(path)
    result = again.wait(timeout=100)
    assert (result.generated, result.failed) == (40, 0)
    # The chunks in flight are finished meanwhile.
    assert result.reused >= len(there) >= 10
    assert len(generated_by_workers(settings, again.id)) == 40 - result.reused
    assert [worker.pid for worker in client.fleet()] == [worker.pid for worker in before]
    # The launcher keeps its box, and every key of the lost batch expires.
    assert client.redis.exists(RedisKeys(settings.fleet).box_lease(settings.box))
    left = [str(key) for key in client.redis.scan_iter(f"*{lost.id}*")]
    assert [key for key in left if client.redis.ttl(key) < 0] == []
    assert fleet.stop() == 0
    assert fleet.find(Event.RESTARTING) == []
    assert not [line for line in fleet.lines if "Traceback" in line]
