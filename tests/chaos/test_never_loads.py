"""A worker that can never load its model: the others do its work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cloner import Client
from cloner.settings import Settings
from tests.integration.conftest import PATIENCE_S, Start, eventually, run_cloner, spoken
from tests.support.batches import write_batch
from tests.support.saboteur import NO_MEMORY_TWICE, WORKER_1_CANNOT_LOAD, WORKER_1_DIES_LOADING, sabotage


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (WORKER_1_CANNOT_LOAD, "the GPU has fallen off the bus"),
        (WORKER_1_DIES_LOADING, "it lost 5 model processes before one had loaded"),
    ],
    ids=["it says why", "it dies"],
)
def test_the_others_take_over_the_queue_of_a_worker_that_cannot_load(
    launch: Start,
    client: Client,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    reason: str,
) -> None:
    sabotage(tmp_path, monkeypatch, what)
    fleet = launch("--workers", "2", heartbeat_s=0.2)
    fleet.wait_for("Launching Worker 1")
    batch = client.submit(write_batch(tmp_path, [4, 4, 4]))
    assert [assignment.speakers for assignment in batch.assignments] == [("0", "2"), ("1",)]
    fleet.wait_for(f"[Main] Worker 1 cannot load its model: {reason}; the others take over its queue")
    assert batch.wait(timeout=100).generated == 12
    assert spoken(settings, batch.id) == list(range(12))
    assert [worker.index for worker in client.fleet()] == [0]
    assert len(fleet.wait_for("Launching Worker 1")) == 1


def test_one_whose_card_is_still_full_of_a_killed_process_loads_in_the_end(
    launch: Start, client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(tmp_path, monkeypatch, NO_MEMORY_TWICE)
    fleet = launch("--workers", "1", fake_segment_s=0.3)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [8]))
    eventually(lambda: batch.progress().generated >= 2)
    (worker,) = client.fleet()
    os.kill(worker.pid, signal.SIGKILL)
    fleet.wait_for("Worker 0 did not load its model again: CUDA out of memory; starting it again in 1 s")
    fleet.wait_for("Worker 0 did not load its model again: CUDA out of memory; starting it again in 2 s")
    assert batch.wait(timeout=PATIENCE_S).generated == 8
    assert spoken(settings, batch.id) == list(range(8))


def test_a_run_completes_with_the_workers_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(tmp_path, monkeypatch, WORKER_1_CANNOT_LOAD)
    env = {"CLONER_ENGINE": "fake"}
    run = run_cloner("run", str(write_batch(tmp_path, [3, 3])), "--workers", "2", cwd=tmp_path, env=env)
    assert run.returncode == 0, run.stderr
    assert "[Main] Worker 1 cannot load its model: the GPU has fallen off the bus; the others" in run.stderr
    assert "[Main] All done! Generated 6/6 segments" in run.stderr
