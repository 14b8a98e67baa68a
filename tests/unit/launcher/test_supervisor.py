"""What a supervisor starts, and how it keeps it in the registry."""

from __future__ import annotations

import re

import psutil
import pytest

from cloner.events import Event
from cloner.state.registry import WorkerState
from launcher.cpu import Cpu
from launcher.gpus import GB, described_gpu
from launcher.layout import Rule, plan_layout
from tests.support.launcher_scene import DIES, UP, FakeClock, Scene
from tests.support.log_lines import is_line_of


def test_all_workers_are_registered_as_loading_before_any_is_started(scene: Scene) -> None:
    seen: list[list[str]] = []
    scene.on_line = lambda line: (
        seen.append(scene.names()) if is_line_of(line, Event.LAUNCHING_WORKER, index=0) else None
    )

    with scene.supervisor() as supervisor:
        supervisor.start()
        workers = scene.registry.workers()

    assert seen == [["cpu.0@box1", "cpu.1@box1"]]
    assert [(w.box, w.index, w.queue, w.device, w.gpu) for w in workers] == [
        ("box1", 0, "cloner.main.v3.box1.cpu.0", "cpu", ""),
        ("box1", 1, "cloner.main.v3.box1.cpu.1", "cpu", ""),
    ]
    assert {(w.state, w.engine, w.checkpoint, w.slots) for w in workers} == {(WorkerState.LOADING, "fake", "mini", 3)}


def test_a_batch_can_be_assigned_between_registering_and_starting(scene: Scene) -> None:
    with scene.supervisor() as supervisor:
        workers = supervisor.register()
        scene.registry.update(workers[1].name, assigned_texts=16)
        supervisor.start()

        assert [worker.assigned_texts for worker in scene.registry.workers()] == [0, 16]


def test_everything_is_launched_at_once_and_lines_carry_their_prefix(scene: Scene) -> None:
    with scene.supervisor() as supervisor:
        supervisor.start()
        assert scene.lines == [
            "[Main] Launching 2 workers...",
            "[Main] Launching Worker 0 on CPU",
            "[Main] Launching Worker 1 on CPU",
        ]
        assert supervisor.run(until=lambda: len(scene.matching("up")) == 3) is None

    assert {line.rpartition(" ")[0] for line in scene.matching("up")} == {
        "[Worker 0] up",
        "[Worker 1] up",
        "[Collector] up",
    }


def test_a_collector_that_runs_elsewhere_is_not_started(scene: Scene) -> None:
    others = len(psutil.Process().children())
    with scene.supervisor(collector=None) as supervisor:
        supervisor.start()
        assert len(psutil.Process().children()) == others + 2


def test_workers_on_a_gpu_are_announced_with_it(scene: Scene) -> None:
    scene.layout = plan_layout([described_gpu("A:24", 0), described_gpu("B:24", 1)], Cpu(4, GB), Rule(8.0), 2, None)

    with scene.supervisor() as supervisor:
        supervisor.start()

    assert scene.lines[1:3] == ["[Main] Launching Worker 0 on GPU 0", "[Main] Launching Worker 1 on GPU 1"]


def test_children_get_their_pin_their_threads_and_the_overrides(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CLONER_INHERITED", "yes")
    scene.environment = {"CLONER_ENGINE": "fake"}
    scene.layout = plan_layout([described_gpu("A:24", 0), described_gpu("B:24", 1)], Cpu(6, GB), Rule(8.0), 2, None)
    names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CLONER_WORKER_INDEX", "CLONER_ENGINE", "CLONER_INHERITED"
    print_env = f"import os; print('env', *(os.environ.get(name) or '-' for name in {names}))\n" + UP

    with scene.supervisor(worker=print_env, collector=print_env) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.matching("env")) == 3)

    assert sorted(line for line in scene.matching("env") if "Worker" in line) == [
        "[Worker 0] env 0 3 0 fake yes",
        "[Worker 1] env 1 3 1 fake yes",
    ]
    assert re.fullmatch(r"\[Collector\] env - \S+ - fake yes", scene.matching(r"\[Collector\] env")[0])


def test_a_worker_that_loads_for_long_does_not_expire_and_a_loaded_one_sends_its_own_heartbeats(scene: Scene) -> None:
    clock = scene.clock = FakeClock()
    seen: list[list[str]] = []

    def twenty_seconds_later() -> bool:
        seen.append(scene.names())
        clock.now += 20
        scene.age_heartbeats(20)
        return len(seen) == 5

    with scene.supervisor() as supervisor:
        supervisor.start()
        scene.registry.update("cpu.1@box1", state=WorkerState.READY)
        supervisor.run(until=twenty_seconds_later)

    assert seen[-1] == ["cpu.0@box1"]


def test_a_dead_worker_gets_no_heartbeats(scene: Scene) -> None:
    clock = scene.clock = FakeClock()
    seen: list[list[str]] = []

    def on_death(line: str) -> None:
        if is_line_of(line, Event.RESTARTING, delay_s=1):
            clock.now += 0.25

    def poll() -> bool:
        if scene.find(Event.RESTARTING, delay_s=1):
            seen.append(scene.names())
            scene.age_heartbeats(20)
            clock.now += 0.25
        return len(seen) == 3

    scene.on_line = on_death
    scene.settings["heartbeat_s"] = 0.125
    scene.layout = plan_layout([], Cpu(4, 64 * GB), Rule(8.0), speakers=1, workers=None)
    with scene.supervisor(worker=DIES) as supervisor:
        supervisor.start()
        supervisor.run(until=poll)

    assert seen[-1] == []
