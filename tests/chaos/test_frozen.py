"""Workers that run and make no progress: frozen by SIGSTOP, or with an engine that hangs."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from cloner import Client
from cloner.events import Event
from cloner.names import collector_name
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.crashes import BATCHED, check_whole
from tests.support.fleet_processes import Role, fleet_processes
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.process_tree import celery_child, celery_parents
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

ALIVE = {"alive_s": 6.0, "heartbeat_s": 0.2}


@pytest.mark.parametrize("part", ["parent", "child"])
def test_a_frozen_worker_is_replaced_and_its_chunk_goes_on(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, part: str
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.25, **ALIVE)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [15, 15]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=15)
    (worker,) = celery_parents(fleet, "cloner.worker")
    victim = worker if part == "parent" else celery_child(worker)
    victim.suspend()
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Worker 0", reason="has shown no sign of life for 6 s")
    fleet.wait_for(Event.RESTARTING, title="Worker 0", reason="was killed", delay_s=1)
    check_whole(batch.wait(timeout=100), settings)
    assert len(fleet.wait_for(Event.MODELS_LOADED, 2)) == 2
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_frozen_collector_is_replaced_and_opens_the_batch(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", **ALIVE)
    fleet.wait_for(Event.MODELS_LOADED)
    (collector,) = celery_parents(fleet, "cloner.collector")
    holder = collector_name(settings.box)
    eventually(
        lambda: bool(
            client.redis.hexists(
                RedisKeys(settings.fleet).process_heartbeats,
                RedisKeys(settings.fleet).process_heartbeat(holder, "child"),
            )
        )
    )
    celery_child(collector).suspend()
    batch = client.submit(write_batch(tmp_path))
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Collector", reason="has shown no sign of life for 6 s")
    assert batch.wait(timeout=100).generated == 46


def test_a_worker_whose_engine_hangs_is_replaced_and_its_chunk_goes_on(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    """The engine hangs at its fifth segment for ever, while its threads live."""
    patch_module(
        "cloner.engine.fake",
        """
        import threading
        generate = module._generate
        def hanging(request):
            if request.segment == 4 and once("hung"):
                threading.Event().wait()
            return generate(request)
        module._generate = hanging
        """,
    )
    fleet = launch("--workers", "1", hang_s=6.0, **ALIVE)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [10]))
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Worker 0", reason="has been busy for 6 s without a step")
    check_whole(batch.wait(timeout=100), settings)


@pytest.mark.parametrize(
    ("what", "hang_s", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSTOP)", 300.0, "has shown no sign of life for 6 s"),
        ("threading.Event().wait()", 10.0, "has been busy for 10 s without a step"),
    ],
    ids=["frozen", "hanging"],
)
def test_a_batched_engine_that_stands_still_is_replaced_and_its_chunk_goes_on(
    what: str,
    hang_s: float,
    reason: str,
    launch: Launch,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """The engine stops in the middle of the chunk, between two steps; its replacement does not."""
    patch_module(
        "cloner.engine.slots.scheduler",
        f"""
        import threading
        step = module.SlotScheduler._run
        def standing_still(self, running):
            if self.usage.frames > 60 and once("stood still"):
                {what}
            return step(self, running)
        module.SlotScheduler._run = standing_still
        """,
    )
    fleet = launch("--workers", "1", checkpoint_dir=tiny_checkpoint, hang_s=hang_s, **BATCHED, **ALIVE)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [8], {"min_new_tokens": 15, "max_new_tokens": 15}))
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Worker 0", reason=reason)
    before = recorded_segments(settings, batch.id)
    assert 0 < len(before) < 8
    check_whole(batch.wait(timeout=200), settings)
    assert len(fleet.wait_for(Event.MODELS_LOADED, 2)) == 2


def test_a_process_that_was_frozen_as_it_started_is_gone_with_the_next_launcher(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    """It has not asked the kernel yet to end it with its parent, whose launcher is killed."""
    patch_module(
        "cloner.process",
        """
        die_with_parent = module.die_with_parent

        def freeze_first():
            if os.environ.get("CLONER_CONSUMER", "").startswith("cpu.") and once("frozen"):
                os.kill(os.getpid(), signal.SIGSTOP)
            die_with_parent()

        module.die_with_parent = freeze_first
        """,
    )
    first = launch("--workers", "1")

    def frozen() -> list[psutil.Process]:
        processes = (found.process for found in fleet_processes(settings.fleet) if found.role is Role.WORKER_CHILD)
        return [process for process in processes if process.status() == psutil.STATUS_STOPPED]

    eventually(lambda: len(frozen()) == 1)
    (left,) = frozen()
    first.stop(signal.SIGKILL)
    parents = (Role.WORKER, Role.COLLECTOR)
    eventually(lambda: not any(found.role in parents for found in fleet_processes(settings.fleet)))
    assert left.is_running()
    second = launch("--workers", "1")
    second.wait_for(Event.MODELS_LOADED)
    assert not left.is_running()
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=100).generated == 2
    assert second.stop() == 0
    assert client.redis.smembers(RedisKeys(settings.fleet).box_launchers(settings.box)) == set()
