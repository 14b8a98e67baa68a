"""The process with the model dies in the middle of a chunk: by a signal, by a segment or by its engine."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.crashes import BATCHED, KILLER, check_whole, loads
from tests.support.module_patches import ModulePatcher
from tests.support.processes import LaunchLoaded

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_child_that_is_killed_speaks_on_where_it_was(
    engine: str, launch_loaded: LaunchLoaded, client: Client, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"fake_segment_s": 0.2} if engine == "fake" else {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch_loaded(**changes)
    batch = client.submit(write_batch(tmp_path, [24], {"min_new_tokens": 20, "max_new_tokens": 20}))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=24)
    (worker,) = client.fleet()
    before = {path: path.stat().st_mtime_ns for path in (settings.out_dir / "batch/audio").iterdir()}
    os.kill(worker.pid, signal.SIGKILL)
    result = batch.wait(timeout=200)
    check_whole(result, settings)
    assert loads(client) == 2
    # At most two had a file and no line yet.
    assert sum(path.stat().st_mtime_ns != before[path] for path in before) <= 2


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_segment_that_kills_each_time_is_set_aside_and_all_others_are_spoken(
    engine: str,
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    if engine == "fake":
        patch_module(
            "cloner.engine.fake",
            """
            generate = module._generate
            module._generate = lambda request: die() if "killer" in request.text else generate(request)
            """,
        )
        # Loading lasts for several health checks, which must not count it as a worker that never loads.
        changes: dict[str, object] = {"fake_slots": 3, "fake_load_s": 1.0, "heartbeat_s": 0.2}
    else:
        # The text goes into the prompt when the chunk comes; it kills when it is decoded.
        patch_module(
            "cloner.engine.slots.scheduler",
            """
            step = module.SlotScheduler._run
            def stepping(self, running):
                if any("killer" in segment.request.text and segment.frames == 3 for segment in running):
                    die()
                return step(self, running)
            module.SlotScheduler._run = stepping
            """,
        )
        changes = {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch_loaded(**changes)
    path = write_batch(tmp_path, [6, 4], {"min_new_tokens": 8, "max_new_tokens": 8}, texts={4: KILLER})
    result = client.submit(path).wait(timeout=280)
    check_whole(result, settings, failed={4})
    assert result.errors[4].code == "crashed"
    assert "died 3 times while it spoke this segment and no other" in result.errors[4].message
    # Once with others, three times alone; the launcher does not restart the worker.
    assert loads(client) == 5
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=0)) == 1


def test_a_segment_that_kills_only_in_company_is_spoken_alone(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        speak = module.FakeEngine.speak
        def speaking(self, requests, observer=module.NULL_OBSERVER):
            requests = list(requests)
            if len(requests) > 1 and any("killer" in request.text for request in requests):
                for request in requests[:3]:
                    observer.started(request.segment)
                die()
            return speak(self, requests, observer)
        module.FakeEngine.speak = speaking
        """,
    )
    launch_loaded(fake_slots=3)
    result = client.submit(write_batch(tmp_path, [6], texts={1: KILLER})).wait(timeout=200)
    check_whole(result, settings)
    assert loads(client) == 2


def test_an_engine_that_kills_at_every_segment_is_given_up_and_the_batch_ends(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module("cloner.engine.fake", "module._generate = lambda request: die()")
    fleet = launch_loaded(fake_slots=4, fake_load_s=0.4, heartbeat_s=0.2)
    result = client.submit(write_batch(tmp_path, [8])).wait(timeout=280)
    check_whole(result, settings, failed=set(range(8)))
    assert {error.code for error in result.errors.values()} == {"engine_failed"}
    assert "died 10 times without a segment generated in between" in result.errors[0].message
    assert loads(client) == 11
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=0)) == 1
    fleet.wait_for(Event.CHUNK_GIVEN_UP, error=re.compile("the worker's process died 10 times"))


def test_a_worker_that_dies_at_every_segment_is_given_up_and_the_others_speak_all(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        generate = module._generate
        is_broken = os.environ.get("CLONER_WORKER_INDEX") == "1"
        module._generate = lambda request: die() if is_broken else generate(request)
        """,
    )
    fleet = launch_loaded(2)
    batch = client.submit(write_batch(tmp_path, [2, 1, 2, 1]))
    assert [assignment.speakers for assignment in batch.assignments] == [("0", "2"), ("1", "3")]
    fleet.wait_for(Event.CHUNK_PASSED_ON, child="Worker 1", to=re.compile("cpu.0@"))
    assert fleet.find(Event.CHUNK_PASSED_ON, child="Worker 0") == []
    check_whole(batch.wait(timeout=280), settings)
    batch = client.submit(write_batch(tmp_path, [2, 2], outputs="again"))
    reason = re.compile("is broken: it could speak nothing of two chunks in a row")
    fleet.wait_for(Event.WORKER_GIVEN_UP, title="Worker 1", reason=reason)
    check_whole(batch.wait(timeout=280), settings)
    (worker,) = client.fleet()
    assert (worker.index, worker.loads) == (0, 1)
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=1)) == 1
    assert not [line for line in fleet.lines if "Traceback" in line]


def test_a_speaker_that_kills_every_worker_costs_no_worker_its_place(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        generate = module._generate
        module._generate = lambda request: die() if "killer" in request.text else generate(request)
        """,
    )
    launch_loaded(2)
    batch = client.submit(write_batch(tmp_path, [2, 1, 2, 3], texts={2: KILLER}))
    check_whole(batch.wait(timeout=280), settings, failed={2})
    assert batch.result().errors[2].code == "crashed"
    assert {worker.index: worker.loads for worker in client.fleet()} == {0: 2, 1: 4}


def test_an_engine_that_breaks_ends_its_process_and_a_fresh_one_goes_on(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        generate = module._generate
        def generating(request):
            if "killer" in request.text and once("broken"):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return generate(request)
        module._generate = generating
        """,
    )
    fleet = launch_loaded(fake_slots=2)
    result = client.submit(write_batch(tmp_path, [9], texts={3: KILLER})).wait(timeout=200)
    check_whole(result, settings)
    assert loads(client) == 2
    error = re.compile("the engine broke: RuntimeError: CUDA error: an illegal memory access")
    assert len(fleet.wait_for(Event.ENGINE_RELOADING, error=error)) == 1
    fleet.wait_for(Event.CHILD_DIED, how="exitcode 75")
    assert not [line for line in fleet.lines if "Traceback" in line]
