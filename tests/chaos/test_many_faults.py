"""A batch that everything happens to: when it is done, nobody can tell."""

from __future__ import annotations

import json
import random
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner.client import Client
from cloner.filenames import HOUSEKEEPING
from cloner.record import batch_directory
from cloner.settings import EngineName, Settings
from tests.batches import write_batch
from tests.chaos.faults import KINDS, Faults, RecordFiles
from tests.chaos.members import members
from tests.chaos.servers import Server
from tests.integration.conftest import Said, Start, environment, eventually, run_cloner

SEED = 20_261_125
SIZES = [100] * 20
WORKERS = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Iterator[Settings]:
    """A fleet that notices frozen workers soon; of its processes, none outlives the test."""
    settings = Settings(
        redis_url=server.url,
        fleet=f"test-{secrets.token_hex(4)}",
        out_dir=tmp_path / "out",
        engine=EngineName.FAKE,
        fake_slots=4,
        fake_segment_s=0.4,
        heartbeat_s=0.5,
        alive_s=10,
    )
    yield settings
    for member in members(settings.fleet):
        member.process.kill()


@pytest.mark.timeout(1200)
def test_two_thousand_segments_come_through_sixty_faults(
    launch: Start, server: Server, settings: Settings, client: Client, tmp_path: Path
) -> None:
    batch_file = write_batch(tmp_path, SIZES)
    total = sum(SIZES)
    undisturbed = _undisturbed(batch_file, settings, tmp_path)

    def start_fleet() -> Said:
        return launch("--workers", str(WORKERS))

    start_fleet().wait_for("Models loaded!", WORKERS)
    batch = client.submit(batch_file)

    def wait_for_batch() -> Said:
        return Said([sys.executable, "-m", "cloner", "wait", batch.id], environment(settings), tmp_path)

    rng = random.Random(SEED)
    kinds = list(KINDS) * 6
    rng.shuffle(kinds)
    faults = Faults(settings, server, rng, start_fleet, wait_for_batch)
    assert faults.strike(kinds, RecordFiles(settings.out_dir, batch.id), total, step=(8, 36)) >= 60

    result = batch.wait(timeout=600)
    assert (result.generated, result.failed, result.errors) == (total, 0, {})
    assert faults.waiting.wait() == 0
    # Each once, each the same to the byte, and nothing half done beside them.
    assert _files(settings.out_dir) == undisturbed
    lines = [
        json.loads(line)
        for path in batch_directory(settings.out_dir, batch.id).glob("*.jsonl")
        for line in path.read_text().splitlines()
        if line
    ]
    # Spoken again is only what was in hand at a crash, and of that there was no line yet.
    assert Counter(line["segment"] for line in lines) == dict.fromkeys(range(total), 1)
    assert not list((settings.out_dir / HOUSEKEEPING).rglob("*part*"))
    _assert_nothing_left(client, settings)


def _undisturbed(batch_file: Path, settings: Settings, folder: Path) -> dict[str, bytes]:
    """The files that the batch makes where nothing happens."""
    out = folder / "undisturbed"
    env = {"CLONER_ENGINE": settings.engine, "CLONER_FAKE_SLOTS": str(settings.fake_slots)}
    ran = run_cloner("run", str(batch_file), "--out", str(out), "--workers", "1", cwd=folder, env=env)
    assert ran.returncode == 0, ran.stderr
    return _files(out)


def _files(out: Path) -> dict[str, bytes]:
    """Every file under an output root that is not ours."""
    paths = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return {str(path): (out / path).read_bytes() for path in paths if path.parts[0] != HOUSEKEEPING}


def _assert_nothing_left(client: Client, settings: Settings) -> None:
    """No message waits or is in anybody's hand, and when the launcher has stopped, no process is there."""
    workers = client.fleet()
    holders = [worker.name for worker in workers] + [settings.names.collector(settings.box)]
    queues = [worker.queue for worker in workers]
    queues += [settings.names.shared_queue(), settings.names.collector_queue]
    in_hand = [settings.names.unacked(holder) for holder in holders]
    eventually(lambda: not client.redis.exists(*queues, *in_hand))
    for member in members(settings.fleet):
        if "launcher" in member.role:
            member.process.terminate()
    eventually(lambda: not list(members(settings.fleet)))
