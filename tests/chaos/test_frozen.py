"""Workers that are there and do not work: frozen by SIGSTOP, or with an engine that hangs."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cloner.client import Client
from cloner.settings import Settings
from tests.batches import write_batch
from tests.chaos.plugins import Plugin
from tests.chaos.test_processes_die import child, parents
from tests.chaos.test_segments_kill import BATCHED, check_whole
from tests.integration.conftest import Start, eventually, spoken

ALIVE = {"alive_s": 6.0, "heartbeat_s": 0.2}


@pytest.mark.parametrize(("part", "engine"), [("parent", "fake"), ("child", "fake"), ("child", "batched")])
def test_a_frozen_worker_is_replaced_and_its_chunk_goes_on(
    launch: Start,
    client: Client,
    settings: Settings,
    tiny_checkpoint: Path,
    tmp_path: Path,
    part: str,
    engine: str,
) -> None:
    changes: dict[str, object] = {"fake_segment_s": 0.25}
    if engine == "batched":
        changes = {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch("--workers", "1", **changes, **ALIVE)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [15, 15], {"min_new_tokens": 30, "max_new_tokens": 30}))
    fleet.wait_for("Speaker 0 progress: 5/15")
    (worker,) = parents(fleet, "cloner.worker")
    victim = worker if part == "parent" else child(worker)
    victim.suspend()
    fleet.wait_for("[Main] Worker 0 has shown no sign of life for 6 s: killing it")
    fleet.wait_for("[Main] Worker 0 was killed; starting it again in 1 s")
    check_whole(batch.wait(timeout=100), settings)
    assert len(fleet.wait_for("Models loaded!", 2)) == 2
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_frozen_collector_is_replaced_and_opens_the_batch(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", **ALIVE)
    fleet.wait_for("Models loaded!")
    (collector,) = parents(fleet, "cloner.worker.collector")
    holder = settings.names.collector(settings.box)
    eventually(lambda: bool(client.redis.hexists(settings.names.pulses, settings.names.pulse(holder, "child"))))
    child(collector).suspend()
    batch = client.submit(write_batch(tmp_path))
    fleet.wait_for("[Main] Collector has shown no sign of life for 6 s: killing it")
    assert batch.wait(timeout=100).generated == 46


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_worker_whose_engine_hangs_is_replaced_and_its_chunk_goes_on(
    engine: str,
    launch: Start,
    client: Client,
    settings: Settings,
    plugin: Plugin,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """For ever, at its fifth segment or so, while its threads live."""
    if engine == "fake":
        plugin(
            "cloner.engine.fake",
            """
            import threading
            answer = module._answer
            def hanging(line):
                if line.segment == 4 and once("hung"):
                    threading.Event().wait()
                return answer(line)
            module._answer = hanging
            """,
        )
        changes: dict[str, object] = {}
    else:
        plugin(
            "cloner.engine.scheduler",
            """
            import threading
            step = module.Scheduler._step
            def hanging(self, running):
                if self.use.frames > 120 and once("hung"):
                    threading.Event().wait()
                return step(self, running)
            module.Scheduler._step = hanging
            """,
        )
        changes = {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch("--workers", "1", hang_s=6.0, **changes, **ALIVE)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [10], {"min_new_tokens": 30, "max_new_tokens": 30}))
    fleet.wait_for("[Main] Worker 0 has been busy for 6 s without a step: killing it")
    finished = len(spoken(settings, batch.id))
    assert 0 < finished < 10
    check_whole(batch.wait(timeout=100), settings)
    assert len(fleet.wait_for("Models loaded!", 2)) == 2
