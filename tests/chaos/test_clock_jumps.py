"""Wall clocks that jump, or differ by an hour: nobody is killed for it, and nothing is lost."""

from __future__ import annotations

import json
import re
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner import Client
from cloner.settings import EngineName, Settings
from cloner.state.keys import RedisKeys
from tests.integration.conftest import Said, Start, environment, eventually, run_cloner, spoken
from tests.support.batches import write_batch
from tests.support.clocks import HOUR_S, Clock
from tests.support.servers import Server

UNTRUE = re.compile("killing it|starting it again|is gone|taken over|opened again|Traceback")
"""What no launcher says of a clock."""


@pytest.fixture
def servers_clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "servers-clock")


@pytest.fixture
def fleets_clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "fleets-clock")


@pytest.fixture
def settings(servers_clock: Clock, tmp_path: Path) -> Iterator[Settings]:
    """A server with a clock of its own."""
    with servers_clock.shown():
        server = Server(tmp_path)
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


@pytest.mark.parametrize(("whose", "far_s"), [("fleet", 48 * HOUR_S), ("server", HOUR_S)])
def test_a_clock_that_jumps_under_a_batch_does_no_harm(
    whose: str,
    far_s: int,
    fleets_clock: Clock,
    servers_clock: Clock,
    launch: Start,
    client: Client,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """A box's by as much as that of a machine which was suspended over a weekend: messages in hand seem that old."""
    with fleets_clock.shown():
        fleet = launch("--workers", "3", fake_segment_s=0.3)
    fleet.wait_for("Models loaded!", 3)
    # The third worker would take what is given back by mistake.
    batch = client.submit(write_batch(tmp_path, [15, 15]), strategy="shared")
    waiting = Said([sys.executable, "-m", "cloner", "wait", batch.id], environment(settings), tmp_path)
    clock = fleets_clock if whose == "fleet" else servers_clock
    fleet.wait_for("progress: 5/15", 2)
    clock.put(far_s)
    fleet.wait_for("progress: 10/15", 2)
    clock.put(-far_s)

    result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (30, 0)
    assert 0 <= result.elapsed_s < HOUR_S / 2
    assert waiting.wait() == 0
    assert spoken(settings, batch.id) == list(range(30))
    assert [worker.loads for worker in client.fleet()] == [1, 1, 1]
    eventually(lambda: client.redis.exists(RedisKeys(settings.fleet).collector_heartbeat) == 1)
    # The launcher has its box as before.
    assert launch("--workers", "1").wait() == 2
    assert fleet.stop() == 0
    assert [line for line in fleet.lines if UNTRUE.search(line)] == []


def test_a_dead_launchers_box_is_free_soon_although_the_servers_clock_is_put_back(
    servers_clock: Clock, launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """Its lease would last an hour longer."""
    fleet = launch("--workers", "1", fake_segment_s=0.3, stop_s=1)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [10]))
    fleet.wait_for("Speaker 0 progress: 5/10")
    fleet.stop(signal.SIGKILL)
    servers_clock.put(-HOUR_S)
    key = RedisKeys(settings.fleet).box_lease(settings.box)
    assert client.redis.pttl(key) > 3_000_000
    second = launch("--workers", "1", stop_s=1)
    second.wait_for("waiting whether it lives")
    assert client.redis.pttl(key) <= 11_000
    assert batch.wait(timeout=100).generated == 10
    assert spoken(settings, batch.id) == list(range(10))


def test_boxes_and_clients_whose_clocks_differ_work_together(
    fleets_clock: Clock, launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """One box has the server's clock, one is an hour ahead, and so far behind is the client's."""
    fleets_clock.put(HOUR_S)
    with fleets_clock.shown():
        ahead = launch("--workers", "1", box="ahead", fake_segment_s=0.1)
    right = launch("--workers", "1", box="right", fake_segment_s=0.1)
    for fleet in (ahead, right):
        fleet.wait_for("Models loaded!")
    clients_clock = Clock(tmp_path / "clients-clock")
    clients_clock.put(-HOUR_S)
    batch_file, env = str(write_batch(tmp_path, [8, 8])), environment(settings)
    with clients_clock.shown():
        before = run_cloner("plan", batch_file, cwd=tmp_path, env=env)
        submitted = run_cloner("submit", batch_file, "--wait", cwd=tmp_path, env=env)
        after = run_cloner("plan", batch_file, cwd=tmp_path, env=env)
    assert before.stdout.splitlines()[-1].startswith("16 segments are left to speak"), before.stderr
    assert submitted.returncode == 0, submitted.stderr
    result = json.loads(submitted.stdout)
    assert (result["generated"], result["workers"]) == (16, {"cpu.0@ahead": 8, "cpu.0@right": 8})
    assert 0 < result["elapsed_s"] < HOUR_S / 2
    assert spoken(settings, result["batch_id"]) == list(range(16))
    assert after.stdout.splitlines()[-1] == "Nothing is left to speak", after.stderr
    assert "alive" not in submitted.stderr
    assert [worker.box for worker in client.fleet()] == ["ahead", "right"]
    for fleet in (ahead, right):
        assert fleet.stop() == 0
        assert [line for line in fleet.lines if UNTRUE.search(line)] == []
