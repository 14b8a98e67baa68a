"""Batches that everything happens to: they end as if nothing had happened."""

from __future__ import annotations

import json
import random
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from cloner.validation import HOUSEKEEPING
from tests.support.batches import write_batch
from tests.support.fault_injector import KINDS, FaultInjector
from tests.support.fleet_processes import fleet_processes
from tests.support.leftovers import left_behind
from tests.support.processes import Launch, LoggedProcess, environment, run_cloner
from tests.support.records import RecordFiles, record_paths
from tests.support.redis_server import RedisServer
from tests.support.waiting_client import WaitingClient

pytestmark = pytest.mark.slow

SEED = 20_261_125

LAST_LINES = 60
"""Lines of each launcher that are printed, to explain a failure."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def settings(server: RedisServer, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a fleet that detects frozen workers soon; its processes end with the test."""
    fleet = f"test-{secrets.token_hex(4)}"
    yield Settings(redis_url=server.url, fleet=fleet, out_dir=tmp_path / "out", heartbeat_s=0.5, alive_s=10)
    for found in fleet_processes(fleet):
        found.process.kill()


@pytest.mark.timeout(1200)
def test_two_thousand_segments_come_through_sixty_faults(
    launch: Launch, server: RedisServer, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"engine": EngineName.FAKE, "fake_slots": 4, "fake_segment_s": 0.4})
    batch_file = write_batch(tmp_path, [100] * 20)
    undisturbed = _undisturbed(batch_file, settings.model_copy(update={"fake_segment_s": 0.0}), tmp_path)
    struck = _go_through(list(KINDS) * 6, launch, server, settings, batch_file, workers=3, step=(8, 36))
    assert struck >= 60
    # Each segment once, equal to the byte, and no partial files beside them.
    assert _files(settings.out_dir) == undisturbed


@pytest.mark.timeout(600)
def test_the_batched_engine_says_the_same_through_ten_faults(
    launch: Launch, server: RedisServer, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"checkpoint_dir": tiny_checkpoint, "slots": 4, "deterministic": True, "engine": EngineName.BATCHED}
    settings = settings.model_copy(update=changes)
    batch_file = write_batch(tmp_path, [10] * 8, {"min_new_tokens": 70, "max_new_tokens": 70})
    undisturbed = _undisturbed(batch_file, settings, tmp_path)
    kinds = [kind for kind in KINDS if kind != "kill_client"]
    assert _go_through(kinds, launch, server, settings, batch_file, workers=2, step=(1, 6)) == len(kinds)
    spoken = _files(settings.out_dir)
    assert spoken.keys() == undisturbed.keys()
    # Equal codes: others would differ everywhere. The codec's last bits depend on what it decodes together.
    for name in spoken:
        ours, theirs = (_samples(root / name) for root in (settings.out_dir, tmp_path / "undisturbed"))
        assert ours.shape == theirs.shape, name
        assert np.abs(ours - theirs).max() <= 1, name
        assert theirs.std() > 30, name


def _go_through(
    kinds: Sequence[str],
    launch: Launch,
    server: RedisServer,
    settings: Settings,
    batch_file: Path,
    *,
    workers: int,
    step: tuple[int, int],
) -> int:
    """Have a fleet generate the batch under these faults, in some order; returns how many were injected.

    Checks that every segment is generated and recorded once, that the waiting client ends, and that nothing is left.
    """
    changes: dict[str, Any] = settings.model_dump()

    fleets: list[LoggedProcess] = []

    def start_fleet() -> LoggedProcess:
        fleets.append(launch("--workers", str(workers), **changes))
        return fleets[-1]

    start_fleet().wait_for(Event.MODELS_LOADED, workers)
    client = Client(settings=settings)
    batch = client.submit(batch_file, prefix="")

    waiting = WaitingClient(settings, batch.id, batch_file.parent)
    rng = random.Random(SEED)
    faults = FaultInjector(settings, server, rng, fleets[-1], start_fleet, lambda: [waiting])
    total = batch.progress().total
    try:
        struck = faults.strike(rng.sample(kinds, len(kinds)), RecordFiles(settings.out_dir, batch.id), total, step)
        result = batch.wait(timeout=600, on_progress=lambda _: faults.check_launcher())
    finally:
        for fleet in fleets:
            print("", *fleet.lines[-LAST_LINES:], sep="\n")
    assert (result.generated, result.errors) == (total, {})
    assert waiting.wait() == 0
    # Only what was in flight at a crash is generated again, and it had no line yet.
    assert Counter(_recorded(settings, batch.id)) == dict.fromkeys(range(total), 1)
    assert not list((settings.out_dir / HOUSEKEEPING).rglob("*part*"))
    assert left_behind(client, settings) == []
    return struck


def _undisturbed(batch_file: Path, settings: Settings, folder: Path) -> dict[str, bytes]:
    """The files that the batch makes without faults."""
    out = folder / "undisturbed"
    env = {name: value for name, value in environment(settings).items() if name != "CLONER_REDIS_URL"}
    ran = run_cloner("run", str(batch_file), "--out", str(out), "--workers", "1", cwd=folder, env=env)
    assert ran.returncode == 0, ran.stderr
    return _files(out)


def _files(out: Path) -> dict[str, bytes]:
    """Every file under an output root except the product's own."""
    paths = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return {str(path): (out / path).read_bytes() for path in paths if path.parts[0] != HOUSEKEEPING}


def _samples(path: Path) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Audio as 16-bit numbers ``[samples]``."""
    samples, _ = soundfile.read(path, dtype="int16")
    return np.asarray(samples, dtype=np.int32)


def _recorded(settings: Settings, batch_id: str) -> Iterator[int]:
    """The segments that the record has as generated, one for each line."""
    for path in record_paths(settings.out_dir, batch_id):
        for line in filter(None, path.read_text().splitlines()):
            result = json.loads(line)
            if not result.get("code"):
                yield result["segment"]
