"""A worker that is stopped leaves no suspects, even where it is killed at last; one that hangs does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.crashes import BATCHED, KILLER, check_whole, journal_lines
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch, LaunchLoaded

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_worker_that_is_stopped_leaves_no_suspects(
    engine: str,
    launch: Launch,
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    changes: dict[str, object] = {"fake_segment_s": 0.5, "fake_slots": 2}
    if engine == "batched":
        changes = {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch_loaded(**changes)
    batch = client.submit(write_batch(tmp_path, [8], {"min_new_tokens": 100, "max_new_tokens": 100}))
    eventually(lambda: any('"segment"' in line for line in journal_lines(settings)))
    assert fleet.stop() == 0
    # The journal's run has an end, so none of its segments is generated alone.
    assert journal_lines(settings)[-1].endswith('"ended":true}')
    launch("--workers", "1", **changes)
    check_whole(batch.wait(timeout=200), settings)


STUCK = """
import ctypes
generate = module._generate
def generating(request):
    if "killer" in request.text and not os.path.exists("free"):
        once("stuck")
        # A lock that this thread holds: it waits for ever, in one step that no signal interrupts.
        lock = ctypes.create_string_buffer(64)
        libc = ctypes.CDLL(None)
        libc.pthread_mutex_lock(lock)
        libc.pthread_mutex_lock(lock)
    return generate(request)
module._generate = generating
"""


def test_a_stop_that_takes_too_long_leaves_no_suspects(
    launch: Launch,
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    patch_module("cloner.engine.fake", STUCK)
    fleet = launch_loaded(fake_slots=3, stop_s=3.0)
    batch = client.submit(write_batch(tmp_path, [6], texts={4: KILLER}))
    eventually((tmp_path / "patches/stuck").exists)
    assert fleet.stop() == 0
    fleet.wait_for(Event.KILLING, processes=re.compile("Worker 0"))
    assert journal_lines(settings)[-1].endswith('"ended":true}')
    (tmp_path / "free").touch()
    launch("--workers", "1")
    check_whole(batch.wait(timeout=200), settings)


def test_a_worker_that_is_killed_because_it_hangs_leaves_suspects(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module("cloner.engine.fake", STUCK)
    fleet = launch_loaded(fake_slots=3, hang_s=3.0, heartbeat_s=0.2, stop_s=3.0)
    client.submit(write_batch(tmp_path, [6], texts={4: KILLER}))
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Worker 0", reason="has been busy for 3 s without a step")
    eventually(lambda: '{"run":2,"segment":4,"alone":true}' in journal_lines(settings))
    assert not [line for line in journal_lines(settings) if "ended" in line]
