"""When a supervisor gives a worker up, and what becomes of its queue."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from cloner.errors import LoadFailed
from cloner.events import Event
from cloner.monitoring.snapshot import FleetReader
from cloner.names import QueueNames
from cloner.settings import Settings
from cloner.state.registry import WorkerState
from launcher.cpu import Cpu
from launcher.gpus import GB
from launcher.layout import Rule, plan_layout
from tests.support.launcher_scene import DIES, UP, FakeClock, Scene
from tests.support.log_lines import fields_of, is_line_of

QUEUES = QueueNames("main")


ONE_CANNOT = "import os\nif os.environ['CLONER_WORKER_INDEX'] == '1': print('bye'); raise SystemExit(78)\n" + UP


def test_a_worker_that_cannot_load_is_given_up_and_its_queue_goes_to_the_others(scene: Scene) -> None:
    queue, shared = QUEUES.worker_queue("box1", "cpu", 1), QUEUES.shared_queue()
    with scene.supervisor(worker=ONE_CANNOT) as supervisor:
        supervisor.register()
        scene.redis.lpush(queue, "1", "2", "3")
        scene.on_line = lambda line: (
            scene.registry.update("cpu.1@box1", error="mini/model.pth\nis missing") if "bye" in line else None
        )
        supervisor.start()
        supervisor.run(until=lambda: scene.redis.llen(shared) == 3)
        # Assigned before it was given up, and sent afterwards.
        scene.redis.lpush(queue, "4")
        supervisor.run(until=lambda: scene.redis.llen(shared) == 4)
        assert scene.names() == ["cpu.0@box1"]
        # The monitoring shows that it is gone, and why.
        gone = [worker for worker in FleetReader(Settings(), scene.redis, MagicMock()).workers() if worker.gone]
        assert [(worker.info.name, worker.info.error) for worker in gone] == [
            ("cpu.1@box1", "cannot load its model: mini/model.pth is missing")
        ]

    assert scene.redis.lrange(shared, 0, -1) == ["4", "3", "2", "1"]
    reason = "cannot load its model: mini/model.pth is missing"
    assert len(scene.find(Event.WORKER_GIVEN_UP, title="Worker 1", reason=reason)) == 1
    assert not scene.find(Event.RESTARTING)
    assert len(scene.find(Event.LAUNCHING_WORKER, index=1)) == 1


def test_when_no_worker_is_left_the_supervisor_stops_with_the_reason(scene: Scene) -> None:
    with scene.supervisor(worker="print('bye'); raise SystemExit(78)") as supervisor:
        supervisor.register()
        for name in ("cpu.0@box1", "cpu.1@box1"):
            scene.registry.update(name, error="mini/model.pth\nis missing")
        scene.on_line = lambda line: (
            scene.registry.update(f"cpu.{line[8]}@box1", error="mini/model.pth\nis missing") if "bye" in line else None
        )
        supervisor.start()
        with pytest.raises(LoadFailed, match=r"^Worker \d cannot load its model: mini/model.pth is missing$"):
            supervisor.run()
        assert scene.names() == []

    assert len(scene.find(Event.WORKER_GIVEN_UP)) == 1


def test_a_worker_that_dies_five_times_before_it_has_loaded_is_given_up(scene: Scene) -> None:
    clock = scene.clock = FakeClock()
    dies = "import os\nif os.environ['CLONER_WORKER_INDEX'] == '1': os.kill(os.getpid(), 9)\n" + UP

    def pass_time(line: str) -> None:
        if is_line_of(line, Event.RESTARTING) or is_line_of(line, Event.WORKER_GIVEN_UP):
            clock.now += 60

    scene.on_line = pass_time
    with scene.supervisor(worker=dies) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: scene.names() == ["cpu.0@box1"])

    assert len(scene.find(Event.LAUNCHING_WORKER, index=1)) == 5
    reason = re.compile("cannot load its model: it died 5 times before it had loaded; at last it was killed by")
    assert scene.find(Event.WORKER_GIVEN_UP, title="Worker 1", reason=reason)


def test_a_worker_that_loads_between_its_deaths_is_not_given_up(scene: Scene) -> None:
    clock = scene.clock = FakeClock()

    def load_now_and_then(line: str) -> None:
        if is_line_of(line, Event.RESTARTING):
            clock.now += 60
        if (
            is_line_of(line, Event.LAUNCHING_WORKER, index=0)
            and len(scene.find(Event.LAUNCHING_WORKER, index=0)) % 4 == 0
        ):
            scene.registry.count_load("cpu.0@box1")

    scene.layout = plan_layout([], Cpu(4, 64 * GB), Rule(8.0), speakers=1, workers=None)
    scene.on_line = load_now_and_then
    with scene.supervisor(worker=DIES) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.find(Event.LAUNCHING_WORKER, index=0)) == 12)
        # More deaths than a worker has that never loads.
        assert len(scene.find(Event.RESTARTING, title="Worker 0", reason="ended with exit status 1")) >= 11
        assert scene.names() == ["cpu.0@box1"]

    assert not scene.find(Event.WORKER_GIVEN_UP)
    assert not scene.matching("cannot load its model")


LOADS_ONCE = """
import os, pathlib
if os.environ['CLONER_WORKER_INDEX'] == '1':
    print('start')
    if pathlib.Path(os.environ['MARKER']).exists():
        print('out of memory')
        raise SystemExit(78)
    print('loaded')
"""


def loads_once(scene: Scene, marker: Path) -> Callable[[str], None]:
    """Worker 1 loads, dies, and does not load again; time passes."""
    clock = scene.clock = FakeClock()
    scene.environment["MARKER"] = str(marker)

    def on_line(line: str) -> None:
        if line == "[Worker 1] loaded":
            scene.registry.count_load("cpu.1@box1")
            marker.touch()
        if is_line_of(line, Event.RESTARTING) or is_line_of(line, Event.WORKER_GIVEN_UP):
            clock.now += 60

    return on_line


def test_a_worker_that_does_not_load_again_is_restarted_four_times_and_then_given_up(
    scene: Scene, tmp_path: Path
) -> None:
    scene.on_line = loads_once(scene, tmp_path / "marker")
    with scene.supervisor(worker=LOADS_ONCE + "else:\n    " + UP.replace("\n", "\n    ")) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: scene.names() == ["cpu.0@box1"])

    reason = "did not load its model again: out of memory"
    again = scene.find(Event.RESTARTING, title="Worker 1", reason=reason)
    assert [fields_of(line, Event.RESTARTING)["delay_s"] for line in again] == ["2", "4", "8", "16"]
    assert scene.find(Event.WORKER_GIVEN_UP, title="Worker 1", reason="cannot load its model: out of memory")


def test_a_worker_that_loads_again_in_the_end_stays(scene: Scene, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    on_line = loads_once(scene, marker)

    def free_the_card(line: str) -> None:
        on_line(line)
        if len(scene.find(Event.RESTARTING, reason=re.compile("did not load its model again"))) == 3:
            marker.unlink(missing_ok=True)

    scene.on_line = free_the_card
    with scene.supervisor(worker=LOADS_ONCE + "else:\n    " + UP.replace("\n", "\n    ")) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.matching(r"\[Worker 1\] loaded")) == 2)
        assert len(scene.names()) == 2


def test_a_worker_that_reports_itself_broken_is_given_up_at_once(scene: Scene) -> None:
    def work(line: str) -> None:
        if "bye" in line:
            scene.registry.count_load("cpu.1@box1")
            scene.registry.update("cpu.1@box1", state=WorkerState.BUSY, error="it could speak nothing")

    scene.on_line = work
    with scene.supervisor(worker=ONE_CANNOT) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: scene.names() == ["cpu.0@box1"])

    assert scene.find(Event.WORKER_GIVEN_UP, title="Worker 1", reason="is broken: it could speak nothing")
    assert len(scene.find(Event.LAUNCHING_WORKER, index=1)) == 1


def test_a_worker_with_a_wrong_setting_is_not_started_again(scene: Scene) -> None:
    with scene.supervisor(worker="print('CLONER_SLOTS is 0'); raise SystemExit(2)") as supervisor:
        supervisor.start()
        with pytest.raises(LoadFailed, match=r"^Worker \d cannot load its model: CLONER_SLOTS is 0$"):
            supervisor.run()

    assert not scene.find(Event.RESTARTING)


def test_without_a_reason_in_the_registry_the_last_line_is_the_reason(scene: Scene) -> None:
    with scene.supervisor(worker="print('no such file: mini'); raise SystemExit(78)") as supervisor:
        supervisor.start()
        with pytest.raises(LoadFailed, match=r"^Worker \d cannot load its model: no such file: mini$"):
            supervisor.run()
