from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cloner.errors import LoadFailed
from cloner.fleet import Registry, WorkerState
from cloner.queues import Names
from cloner.settings import EngineName, load_settings
from launcher.cpu import Cpu
from launcher.gpus import GB, described_gpu
from launcher.layout import Layout, plan_layout
from launcher.supervisor import Supervisor

UP = "import os, signal; print(f'up {os.getpid()}')\nwhile True: signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('heard'))\n" + UP
DIES = "raise SystemExit(1)"


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A supervisor with two CPU workers and a collector, all of them small scripts, and what it said."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.clock: Callable[[], float] = time.monotonic
        self.registry = Registry(redis, Names("main"), alive_s=30)
        self.lines: list[str] = []
        self.on_line: Callable[[str], None] = lambda _line: None
        self.layout: Layout = plan_layout([], Cpu(4, 64 * GB), 8.0, speakers=None, workers=2)
        self.environment: dict[str, str] = {}
        self.settings: dict[str, Any] = {
            "box": "box1",
            "engine": EngineName.FAKE,
            "fake_slots": 3,
            "checkpoint_dir": Path("a/mini"),
            "stop_s": 60.0,
        }

    def age_heartbeats(self, seconds: float) -> None:
        """What the server's clock does in that time."""
        key = Names("main").workers
        for name in self.redis.zrange(key, 0, -1):
            self.redis.zincrby(key, -seconds, str(name))

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)

    def supervisor(self, worker: str = UP, collector: str = UP) -> Supervisor:
        return Supervisor(
            load_settings().model_copy(update=self.settings),
            self.layout,
            self.registry,
            environment=self.environment,
            worker_command=[sys.executable, "-c", worker],
            collector_command=[sys.executable, "-c", collector],
            say=self.say,
            clock=self.clock,
        )

    def said(self, pattern: str) -> list[str]:
        return [line for line in self.lines if re.search(pattern, line)]

    def workers_are_ready(self) -> None:
        """What real workers say of themselves once they have loaded."""
        for worker in self.registry.workers():
            self.registry.update(worker.name, state=WorkerState.READY)

    def names(self) -> list[str]:
        return [worker.name for worker in self.registry.workers()]


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)


def test_all_workers_are_registered_as_loading_before_any_is_started(scene: Scene) -> None:
    seen: list[list[str]] = []
    scene.on_line = lambda line: seen.append(scene.names()) if "Launching Worker 0" in line else None

    with scene.supervisor() as supervisor:
        supervisor.start()
        workers = scene.registry.workers()

    assert seen == [["cpu.0@box1", "cpu.1@box1"]]
    assert [(w.box, w.index, w.queue, w.device, w.gpu) for w in workers] == [
        ("box1", 0, "cloner.main.v1.box1.cpu.0", "cpu", ""),
        ("box1", 1, "cloner.main.v1.box1.cpu.1", "cpu", ""),
    ]
    assert {(w.state, w.engine, w.checkpoint, w.slots) for w in workers} == {(WorkerState.LOADING, "fake", "mini", 3)}


def test_a_batch_can_be_dealt_between_registering_and_starting(scene: Scene) -> None:
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
        assert supervisor.run(until=lambda: len(scene.said("up")) == 3) is None

    assert {line.rpartition(" ")[0] for line in scene.said("up")} == {
        "[Worker 0] up",
        "[Worker 1] up",
        "[Collector] up",
    }


def test_workers_on_a_gpu_are_announced_with_it(scene: Scene) -> None:
    scene.layout = plan_layout([described_gpu("A:24", 0), described_gpu("B:24", 1)], Cpu(4, GB), 8.0, 2, None)

    with scene.supervisor() as supervisor:
        supervisor.start()

    assert scene.lines[1:3] == ["[Main] Launching Worker 0 on GPU 0", "[Main] Launching Worker 1 on GPU 1"]


def test_children_get_their_pin_their_threads_and_the_overrides(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CLONER_INHERITED", "yes")
    scene.environment = {"CLONER_ENGINE": "fake"}
    scene.layout = plan_layout([described_gpu("A:24", 0), described_gpu("B:24", 1)], Cpu(6, GB), 8.0, 2, None)
    names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CLONER_WORKER_INDEX", "CLONER_ENGINE", "CLONER_INHERITED"
    tell = f"import os; print('env', *(os.environ.get(name) or '-' for name in {names}))\n" + UP

    with scene.supervisor(worker=tell, collector=tell) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.said("env")) == 3)

    assert sorted(line for line in scene.said("env") if "Worker" in line) == [
        "[Worker 0] env 0 3 0 fake yes",
        "[Worker 1] env 1 3 1 fake yes",
    ]
    assert re.fullmatch(r"\[Collector\] env - \S+ - fake yes", scene.said(r"\[Collector\] env")[0])


def test_what_dies_is_started_again_later_and_later(scene: Scene) -> None:
    clock = scene.clock = FakeClock()
    delays: list[int] = []

    def pass_time(line: str) -> None:
        if found := re.search(r"Collector ended with exit status 1; starting it again in (\d+) s", line):
            delays.append(int(found[1]))
            clock.now += delays[-1]

    scene.on_line = pass_time
    with scene.supervisor(collector=DIES) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(delays) == 8)

    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(scene.said("Launching Worker")) == 2


def test_nothing_is_started_before_it_is_due(scene: Scene) -> None:
    clock = scene.clock = FakeClock()
    scene.layout = plan_layout([], Cpu(4, 64 * GB), 8.0, speakers=1, workers=None)
    launches: list[int] = []

    def nearly(line: str) -> None:
        if "starting it again in 1 s" in line:
            clock.now += 0.75

    def look() -> bool:
        launches.append(len(scene.said("Launching Worker 0")))
        if scene.said("starting it again in 1 s"):
            clock.now += 0.25
        return launches[-1] == 2

    scene.on_line = nearly
    with scene.supervisor(worker=DIES) as supervisor:
        supervisor.start()
        supervisor.run(until=look)

    assert launches[-2:] == [1, 2]
    assert "[Main] Worker 0 ended with exit status 1; starting it again in 1 s" in scene.lines


def test_a_killed_worker_is_told_by_the_signals_name_and_loads_again(scene: Scene) -> None:
    clock = scene.clock = FakeClock()

    def kill_worker_0(line: str) -> None:
        ups = scene.said(r"\[Worker 0\] up")
        if len(ups) == 1 and line == ups[0]:
            scene.registry.update("cpu.0@box1", state=WorkerState.BUSY)
            os.kill(int(line.rpartition(" ")[2]), signal.SIGSEGV)
        clock.now += 1

    scene.on_line = kill_worker_0
    with scene.supervisor() as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.said(r"\[Worker 0\] up")) == 2)
        state = scene.registry.workers()[0].state

    assert "[Main] Worker 0 was killed by SIGSEGV; starting it again in 1 s" in scene.lines
    assert state is WorkerState.LOADING


def test_a_program_that_cannot_be_started_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with scene.supervisor() as supervisor:
        supervisor.start()

    assert len(scene.said("could not be started: .*/nowhere/python.*; starting it again in 1 s")) == 3


def test_a_model_that_does_not_load_stops_everything_for_the_reason_in_the_registry(scene: Scene) -> None:
    worker = "import os\nif os.environ['CLONER_WORKER_INDEX'] == '1': print('bye'); raise SystemExit(78)\n" + UP

    with scene.supervisor(worker=worker) as supervisor:
        supervisor.register()
        scene.on_line = lambda line: (
            scene.registry.update("cpu.1@box1", error="mini/model.pth\nis missing") if "bye" in line else None
        )
        supervisor.start()
        with pytest.raises(LoadFailed, match=r"^Worker 1 cannot load its model: mini/model.pth is missing$"):
            supervisor.run()
        assert scene.names() == []

    assert not scene.said("starting it again")
    assert len(scene.said("Launching Worker 1")) == 1


def test_without_a_reason_in_the_registry_the_last_line_is_the_reason(scene: Scene) -> None:
    with scene.supervisor(worker="print('no such file: mini'); raise SystemExit(78)") as supervisor:
        supervisor.start()
        with pytest.raises(LoadFailed, match=r"^Worker \d cannot load its model: no such file: mini$"):
            supervisor.run()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_cleanly(scene: Scene, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    scene.on_line = lambda line: os.kill(os.getpid(), number) if line.startswith("[Worker 1] up") else None

    with scene.supervisor() as supervisor:
        supervisor.start()
        assert supervisor.run() == number

    assert scene.said(f"{number.name}: stopping within 60 s; a second signal kills at once")
    assert scene.redis.keys() == []
    assert signal.getsignal(number) == before
    for line in scene.said("up"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.rpartition(" ")[2]), 0)


def test_lines_of_stopping_workers_are_still_passed_on(scene: Scene) -> None:
    last_words = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('last words'))\n" + UP

    with scene.supervisor(worker=last_words) as supervisor:
        supervisor.start()
        scene.workers_are_ready()
        supervisor.run(until=lambda: len(scene.said("up")) == 3)

    assert sorted(scene.said("last words")) == ["[Worker 0] last words", "[Worker 1] last words"]


def test_who_does_not_stop_in_time_is_killed(scene: Scene) -> None:
    scene.settings["stop_s"] = 1.0
    with scene.supervisor(collector=DEAF) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.said("up")) == 3)

    [killing] = scene.said("Killing")
    assert re.fullmatch(r"\[Main\] Killing Collector \(process \d+\)", killing)
    assert scene.names() == []


def test_who_still_loads_is_not_waited_for(scene: Scene) -> None:
    # Were it waited for, this would take an hour.
    scene.settings["stop_s"] = 3600.0
    with scene.supervisor(worker=DEAF) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.said("up")) == 3)

    assert scene.said("Killing") == []
    assert scene.names() == []


def test_a_second_signal_kills_at_once(scene: Scene) -> None:
    def press_again(line: str) -> None:
        if line == "[Worker 0] heard" or (line.startswith("[Worker 0] up")):
            os.kill(os.getpid(), signal.SIGINT)

    scene.on_line = press_again
    # Were the second signal not heeded, this would take an hour.
    scene.settings["stop_s"] = 3600.0
    with scene.supervisor(worker=DEAF) as supervisor:
        supervisor.start()
        scene.workers_are_ready()
        assert supervisor.run() is signal.SIGINT

    assert len(scene.said(r"Killing Worker 0 \(process")) == 1


def test_stopping_twice_or_before_the_start_is_no_error(scene: Scene) -> None:
    with scene.supervisor() as supervisor:
        supervisor.register()
        supervisor.stop()

    assert scene.redis.keys() == []


def test_a_worker_that_loads_for_long_does_not_expire_and_a_loaded_one_beats_for_itself(scene: Scene) -> None:
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
        if "starting it again in 1 s" in line:
            clock.now += 0.25

    def look() -> bool:
        if scene.said("starting it again in 1 s"):
            seen.append(scene.names())
            scene.age_heartbeats(20)
            clock.now += 0.25
        return len(seen) == 3

    scene.on_line = on_death
    scene.settings["heartbeat_s"] = 0.125
    scene.layout = plan_layout([], Cpu(4, 64 * GB), 8.0, speakers=1, workers=None)
    with scene.supervisor(worker=DIES) as supervisor:
        supervisor.start()
        supervisor.run(until=look)

    assert seen[-1] == []
