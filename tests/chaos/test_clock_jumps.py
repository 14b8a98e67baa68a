"""Wall clocks that jump or differ by an hour: no process is killed, and nothing is lost."""

from __future__ import annotations

import json
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings, WorkerSettings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_worker
from tests.support.batches import write_batch
from tests.support.fake_clock import HOUR_S, FakeClock
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, environment, run_cloner
from tests.support.records import recorded_segments
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

FALSE_ALARMS = (
    Event.KILLING_UNHEALTHY,
    Event.RESTARTING,
    Event.MESSAGES_TAKEN_OVER,
    Event.BOX_TAKEN_OVER,
    Event.STALLED_BATCH_REOPENED,
)
"""What a clock that jumps must not cause."""


def check_no_false_alarm(fleet: LoggedProcess) -> None:
    assert [line for event in FALSE_ALARMS for line in fleet.find(event)] == []
    assert not [line for line in fleet.lines if "taken over" in line or "Traceback" in line]


@pytest.fixture
def servers_clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path / "servers-clock")


@pytest.fixture
def fleets_clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path / "fleets-clock")


@pytest.fixture
def settings(servers_clock: FakeClock, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a fleet whose server has a clock of its own."""
    with servers_clock.shown():
        server = RedisServer(tmp_path)
    fleet = f"test-{secrets.token_hex(4)}"
    yield Settings(
        redis_url=server.url,
        fleet=fleet,
        out_dir=tmp_path / "out",
        engine=EngineName.FAKE,
        alive_s=20,
        hang_s=30,
        heartbeat_s=0.5,
    )
    server.kill()


LOADS_TOGETHER = """
load_at_once = module.FakeEngine.load

def load_together(self, log):
    load_at_once(self, log)
    wait_until("all load")

module.FakeEngine.load = load_together
"""


@pytest.mark.parametrize(("whose", "far_s"), [("fleet", 48 * HOUR_S), ("server", HOUR_S)])
def test_a_clock_that_jumps_under_a_batch_does_no_harm(
    whose: str,
    far_s: int,
    fleets_clock: FakeClock,
    servers_clock: FakeClock,
    launch: Launch,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    """A box's clock jumps as after a weekend in suspension: unacknowledged messages seem that old."""
    registry = Registry(client.redis, client.keys, settings.alive_s)
    for number in range(2):
        registry.register(expected_worker(settings, WorkerSettings(number=number, index=number)))
    # Two workers are known: one chunk a speaker. The third would take messages that were requeued by mistake.
    batch = client.submit(write_batch(tmp_path, [8, 8]), strategy="shared")
    patch_module("cloner.engine.fake", LOADS_TOGETHER)
    with fleets_clock.shown():
        fleet = launch("--workers", "3", fake_segment_s=0.6)
    # On a busy machine, the batch could be finished before the third is there.
    fleet.wait_for(Event.LOADING_DAC, 3)
    patch_module.allow("all load")
    fleet.wait_for(Event.MODELS_LOADED, 3)
    waiting = LoggedProcess([sys.executable, "-m", "cloner", "wait", batch.id], environment(settings), tmp_path)
    clock = fleets_clock if whose == "fleet" else servers_clock
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=1, texts=8)
    clock.put(far_s)
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=5, texts=8)
    clock.put(-far_s)

    result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (16, 0)
    assert 0 <= result.elapsed_s < HOUR_S / 2
    assert waiting.wait() == 0
    assert recorded_segments(settings, batch.id) == list(range(16))
    assert [worker.loads for worker in client.fleet()] == [1, 1, 1]
    eventually(lambda: client.redis.exists(RedisKeys(settings.fleet).collector_heartbeat) == 1)
    # The launcher keeps its box.
    assert launch("--workers", "1").wait() == 2
    assert fleet.stop() == 0
    check_no_false_alarm(fleet)


def test_a_dead_launchers_box_is_free_soon_although_the_servers_clock_is_put_back(
    servers_clock: FakeClock, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """Without a cut, the lease would last an hour longer."""
    fleet = launch("--workers", "1", fake_segment_s=0.3, stop_s=1)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [10]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=10)
    fleet.stop(signal.SIGKILL)
    servers_clock.put(-HOUR_S)
    key = RedisKeys(settings.fleet).box_lease(settings.box)
    assert client.redis.pttl(key) > 3_000_000
    second = launch("--workers", "1", stop_s=1)
    second.wait_for(Event.BOX_IS_HELD)
    assert client.redis.pttl(key) <= 11_000
    assert batch.wait(timeout=100).generated == 10
    assert recorded_segments(settings, batch.id) == list(range(10))


def test_boxes_and_clients_whose_clocks_differ_work_together(
    fleets_clock: FakeClock, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """One box has the server's clock, one is an hour ahead, and the client is an hour behind."""
    fleets_clock.put(HOUR_S)
    with fleets_clock.shown():
        ahead = launch("--workers", "1", box="ahead", fake_segment_s=0.1)
    right = launch("--workers", "1", box="right", fake_segment_s=0.1)
    for fleet in (ahead, right):
        fleet.wait_for(Event.MODELS_LOADED)
    clients_clock = FakeClock(tmp_path / "clients-clock")
    clients_clock.put(-HOUR_S)
    batch_file, env = str(write_batch(tmp_path, [8, 8])), environment(settings)
    with clients_clock.shown():
        before = run_cloner("plan", batch_file, cwd=tmp_path, env=env)
        submitted = run_cloner("submit", batch_file, "--wait", cwd=tmp_path, env=env)
        after = run_cloner("plan", batch_file, cwd=tmp_path, env=env)
    assert before.stdout.splitlines()[-1].startswith("16 segments are left to generate"), before.stderr
    assert submitted.returncode == 0, submitted.stderr
    result = json.loads(submitted.stdout)
    assert (result["generated"], result["workers"]) == (16, {"cpu.0@ahead": 8, "cpu.0@right": 8})
    assert 0 < result["elapsed_s"] < HOUR_S / 2
    assert recorded_segments(settings, result["batch_id"]) == list(range(16))
    assert after.stdout.splitlines()[-1] == "Nothing is left to generate", after.stderr
    assert "alive" not in submitted.stderr
    assert [worker.box for worker in client.fleet()] == ["ahead", "right"]
    for fleet in (ahead, right):
        assert fleet.stop() == 0
        check_no_false_alarm(fleet)
