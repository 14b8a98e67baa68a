"""A worker cannot load its model, and the others do its work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.engine_faults import (
    LOADS_AFTER_SUBMISSION,
    NO_MEMORY_TWICE,
    WORKER_1_CANNOT_LOAD,
    WORKER_1_DIES_LOADING,
)
from tests.support.log_lines import find_lines
from tests.support.module_patches import ModulePatcher
from tests.support.polling import TIMEOUT_S, eventually
from tests.support.processes import Launch, run_cloner
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (WORKER_1_CANNOT_LOAD, "the GPU has fallen off the bus"),
        (WORKER_1_DIES_LOADING, "it lost 5 model processes before one had loaded"),
    ],
    ids=["it says why", "it dies"],
)
def test_the_others_take_over_the_queue_of_a_worker_that_cannot_load(
    launch: Launch,
    client: Client,
    settings: Settings,
    tmp_path: Path,
    patch_module: ModulePatcher,
    fault: str,
    reason: str,
) -> None:
    patch_module("cloner.engine.fake", fault + LOADS_AFTER_SUBMISSION)
    fleet = launch("--workers", "2", heartbeat_s=0.2)
    fleet.wait_for(Event.LAUNCHING_WORKER, index=1)
    batch = client.submit(write_batch(tmp_path, [4, 4, 4]))
    assert [assignment.speakers for assignment in batch.assignments] == [("0", "2"), ("1",)]
    patch_module.allow("submitted")
    fleet.wait_for(Event.WORKER_GIVEN_UP, title="Worker 1", reason=f"cannot load its model: {reason}")
    assert batch.wait(timeout=100).generated == 12
    assert recorded_segments(settings, batch.id) == list(range(12))
    assert [worker.index for worker in client.fleet()] == [0]
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=1)) == 1


def test_one_whose_card_is_still_full_of_a_killed_process_loads_in_the_end(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, patch_module: ModulePatcher
) -> None:
    patch_module("cloner.engine.fake", NO_MEMORY_TWICE)
    fleet = launch("--workers", "1", fake_segment_s=0.3)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [8]))
    eventually(lambda: batch.progress().generated >= 2)
    (worker,) = client.fleet()
    os.kill(worker.pid, signal.SIGKILL)
    fleet.wait_for(Event.RESTARTING, 2, title="Worker 0", reason="did not load its model again: CUDA out of memory")
    assert batch.wait(timeout=TIMEOUT_S).generated == 8
    assert recorded_segments(settings, batch.id) == list(range(8))


def test_a_run_completes_with_the_workers_that_load(tmp_path: Path, patch_module: ModulePatcher) -> None:
    patch_module("cloner.engine.fake", WORKER_1_CANNOT_LOAD)
    env = {"CLONER_ENGINE": "fake"}
    run = run_cloner("run", str(write_batch(tmp_path, [3, 3])), "--workers", "2", cwd=tmp_path, env=env)
    assert run.returncode == 0, run.stderr
    log = run.stderr.splitlines()
    reason = "cannot load its model: the GPU has fallen off the bus"
    assert find_lines(log, Event.WORKER_GIVEN_UP, title="Worker 1", reason=reason)
    assert find_lines(log, Event.BATCH_FINISHED, generated=6, total=6)
