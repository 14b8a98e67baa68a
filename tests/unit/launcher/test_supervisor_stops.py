"""How a supervisor stops what it has started."""

from __future__ import annotations

import os
import re
import signal

import pytest

from cloner.events import Event
from cloner.state.keys import RedisKeys
from tests.support.launcher_scene import DEAF, UP, Scene

QUEUES = RedisKeys("main").worker_queues
"""Stays in Redis, since messages may be left in the queues."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_cleanly(scene: Scene, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    scene.on_line = lambda line: os.kill(os.getpid(), number) if line.startswith("[Worker 1] up") else None

    with scene.supervisor() as supervisor:
        supervisor.start()
        assert supervisor.run() == number

    assert scene.find(Event.STOPPING, signal=number.name, stop_s=60)
    assert scene.redis.keys() == [QUEUES]
    assert signal.getsignal(number) == before
    for line in scene.matching("up"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.rpartition(" ")[2]), 0)


def test_lines_of_stopping_workers_are_still_passed_on(scene: Scene) -> None:
    late_line = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('last words'))\n" + UP

    with scene.supervisor(worker=late_line) as supervisor:
        supervisor.start()
        scene.workers_are_ready()
        supervisor.run(until=lambda: len(scene.matching("up")) == 3)

    assert sorted(scene.matching("last words")) == ["[Worker 0] last words", "[Worker 1] last words"]


def test_a_process_that_does_not_stop_in_time_is_killed(scene: Scene) -> None:
    scene.settings["stop_s"] = 1.0
    with scene.supervisor(collector=DEAF) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.matching("up")) == 3)

    [killing] = scene.find(Event.KILLING)
    assert re.fullmatch(r"\[Main\] Killing Collector \(process \d+\)", killing)
    assert scene.names() == []


def test_a_worker_that_still_loads_is_killed_at_once(scene: Scene) -> None:
    # Were it waited for, this would take an hour.
    scene.settings["stop_s"] = 3600.0
    with scene.supervisor(worker=DEAF) as supervisor:
        supervisor.start()
        supervisor.run(until=lambda: len(scene.matching("up")) == 3)

    assert scene.find(Event.KILLING) == []
    assert scene.names() == []


def test_a_second_signal_kills_at_once(scene: Scene) -> None:
    def press_again(line: str) -> None:
        if line == "[Worker 0] heard" or (line.startswith("[Worker 0] up")):
            os.kill(os.getpid(), signal.SIGINT)

    scene.on_line = press_again
    # Were the second signal ignored, this would take an hour.
    scene.settings["stop_s"] = 3600.0
    with scene.supervisor(worker=DEAF) as supervisor:
        supervisor.start()
        scene.workers_are_ready()
        assert supervisor.run() is signal.SIGINT

    assert len(scene.find(Event.KILLING, processes=re.compile(r"Worker 0 \(process"))) == 1


def test_stopping_twice_or_before_the_start_is_no_error(scene: Scene) -> None:
    with scene.supervisor() as supervisor:
        supervisor.register()
        supervisor.stop()

    assert scene.redis.keys() == [QUEUES]


def test_kill_sends_no_stop_signal_first(scene: Scene) -> None:
    # Were they asked to stop, this would take an hour.
    scene.settings["stop_s"] = 3600.0
    with scene.supervisor(worker=DEAF, collector=DEAF) as supervisor:
        supervisor.start()
        scene.workers_are_ready()
        supervisor.run(until=lambda: len(scene.matching("up")) == 3)
        supervisor.kill()

    assert scene.names() == []
    for line in scene.matching("up"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.rpartition(" ")[2]), 0)
