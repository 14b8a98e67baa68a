"""What a supervisor does about processes that end by themselves."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest

from cloner.errors import BoxTaken
from cloner.events import Event
from cloner.names import CHILD, PARENT
from cloner.state.keys import RedisKeys
from cloner.state.registry import WorkerState
from launcher.cpu import Cpu
from launcher.gpus import GB
from launcher.layout import Rule, plan_layout
from tests.support.launcher_scene import DIES, FakeClock, Scene
from tests.support.log_lines import is_line_of

KEYS = RedisKeys("main")


def test_a_process_that_dies_is_restarted_after_growing_delays(scene: Scene) -> None:
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
    assert len(scene.find(Event.LAUNCHING_WORKER)) == 2


def test_nothing_is_started_before_it_is_due(scene: Scene) -> None:
    clock = scene.clock = FakeClock()
    scene.layout = plan_layout([], Cpu(4, 64 * GB), Rule(8.0), speakers=1, workers=None)
    launches: list[int] = []

    def nearly(line: str) -> None:
        if is_line_of(line, Event.RESTARTING, delay_s=1):
            clock.now += 0.75

    def poll() -> bool:
        launches.append(len(scene.find(Event.LAUNCHING_WORKER, index=0)))
        if scene.find(Event.RESTARTING, delay_s=1):
            clock.now += 0.25
        return launches[-1] == 2

    scene.on_line = nearly
    with scene.supervisor(worker=DIES) as supervisor:
        supervisor.start()
        supervisor.run(until=poll)

    assert launches[-2:] == [1, 2]
    assert scene.find(Event.RESTARTING, title="Worker 0", reason="ended with exit status 1", delay_s=1)


def test_a_killed_worker_is_reported_with_the_signals_name_and_loads_again(scene: Scene) -> None:
    clock = scene.clock = FakeClock()

    def kill_worker_0(line: str) -> None:
        ups = scene.matching(r"\[Worker 0\] up")
        if len(ups) == 1 and line == ups[0]:
            scene.registry.update("cpu.0@box1", state=WorkerState.BUSY)
            os.kill(int(line.rpartition(" ")[2]), signal.SIGSEGV)
        clock.now += 1

    scene.on_line = kill_worker_0
    with scene.supervisor() as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.matching(r"\[Worker 0\] up")) == 2)
        state = scene.registry.workers()[0].state

    assert scene.find(Event.RESTARTING, title="Worker 0", reason="was killed by SIGSEGV", delay_s=1)
    assert state is WorkerState.LOADING


def test_a_process_without_heartbeats_is_killed_and_started_again(scene: Scene) -> None:
    scene.settings |= {"alive_s": 1.0, "heartbeat_s": 0.05}

    def beat_once(line: str) -> None:
        if line.startswith("[Worker 0] up"):
            scene.registry.update("cpu.0@box1", state=WorkerState.READY)
            for part in (PARENT, CHILD):
                scene.redis.hset(
                    KEYS.process_heartbeats, KEYS.process_heartbeat("cpu.0@box1", part), f"{line.rpartition(' ')[2]} 1"
                )

    scene.on_line = beat_once
    with scene.supervisor() as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.matching(r"\[Worker 0\] up")) == 2)

    lines = scene.matching("Main.*Worker 0")
    assert lines[1:3] == [
        "[Main] Worker 0 has shown no sign of life for 1 s: killing it",
        "[Main] Worker 0 was killed; starting it again in 1 s",
    ]
    assert len(scene.find(Event.KILLING_UNHEALTHY)) == 1


def test_a_box_that_another_launcher_has_taken_is_abandoned(scene: Scene) -> None:
    with scene.supervisor() as supervisor:
        supervisor.start()
        scene.redis.set(KEYS.box_lease("box1"), "process 1 on another x")
        with pytest.raises(BoxTaken, match="process 1 on another"):
            supervisor.run()
        assert len(scene.names()) == 2

    # The keys belong to the other launcher by now.
    assert len(scene.names()) == 2
    assert scene.redis.get(KEYS.box_lease("box1")) == "process 1 on another x"


def test_a_program_that_cannot_be_started_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with scene.supervisor() as supervisor:
        supervisor.start()

    assert (
        len(scene.find(Event.RESTARTING, reason=re.compile("could not be started: .*/nowhere/python"), delay_s=1)) == 3
    )
