"""When a process counts as frozen or hanging, and when not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis

from cloner.names import CHILD, PARENT
from cloner.settings import Settings, WorkerSettings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerState, expected_worker
from launcher.cpu_time import cpu_times
from launcher.health import HealthCheck, HealthMonitor, Unhealthy, Vitals, exists, pid_of

SETTINGS = Settings(alive_s=30, hang_s=300, load_s=900, heartbeat_s=2)
ME = os.getpid()


@pytest.fixture(scope="module")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


class Life:
    """A worker whose vital signs change every second, except those that are stopped."""

    def __init__(self, state: WorkerState | str = WorkerState.BUSY, child_pid: int = ME) -> None:
        self.health = HealthCheck(SETTINGS)
        self.now = 0
        self.state = str(state)
        self.child_pid = child_pid
        self.waiting = 1
        self.stopped: dict[str, str | int] = {}

    def vitals(self) -> Vitals:
        moving = Vitals(f"{ME} {self.now}", f"{self.child_pid} {self.now}", self.state, str(self.now), self.waiting)
        return replace(moving, **self.stopped)  # type: ignore[arg-type]

    def stop(self, *names: str) -> None:
        self.stopped |= {name: getattr(self.vitals(), name) for name in names}

    def passes(self, seconds: int) -> Unhealthy | None:
        """Check every second; the first result, if there is one."""
        for _ in range(seconds):
            self.now += 1
            if unhealthy := self.health.check(self.vitals(), float(self.now)):
                return unhealthy
        return None


def test_a_process_with_heartbeats_and_steps_is_healthy() -> None:
    assert Life(WorkerState.BUSY).passes(2000) is None
    assert Life(WorkerState.READY).passes(2000) is None
    collector = Life("")
    collector.stop("steps")
    assert collector.passes(2000) is None


@pytest.mark.parametrize("sign", ["parent", "child"])
def test_a_process_whose_heartbeat_stops_is_frozen_after_alive_s(sign: str) -> None:
    life = Life(WorkerState.READY)
    life.stop(sign)
    assert life.passes(31) is None
    assert life.passes(1) == Unhealthy("has shown no sign of life for 30 s")


def test_a_worker_that_is_busy_without_a_step_hangs_and_a_step_resets_the_timer() -> None:
    life = Life(WorkerState.BUSY)
    life.stop("steps")
    assert life.passes(300) is None
    life.stop("steps")
    life.stopped["steps"] = "one more"
    assert life.passes(301) is None
    assert life.passes(1) == Unhealthy("has been busy for 300 s without a step")


def test_a_worker_that_is_ready_and_takes_no_message_that_waits_is_unhealthy() -> None:
    life = Life(WorkerState.READY)
    life.stop("steps")
    life.waiting = 0
    assert life.passes(2000) is None
    life.waiting = 3
    assert life.passes(301) is None
    assert life.passes(1) == Unhealthy("has taken no work for 300 s, and some waits for it")


def test_a_load_may_take_load_s_and_no_longer() -> None:
    life = Life(WorkerState.LOADING)
    life.stop("steps")
    assert life.passes(901) is None
    assert life.passes(1) == Unhealthy("has been loading for more than 900 s")


@pytest.mark.parametrize(("first_heartbeat", "limit_s"), [(True, 300), (False, 120)])
def test_a_child_that_freezes_while_it_loads_is_found_and_sooner_before_its_first_heartbeat(
    first_heartbeat: bool, limit_s: int
) -> None:
    life = Life(WorkerState.LOADING)
    life.stop("child", "steps")
    if not first_heartbeat:
        life.stopped["child"] = ""
    assert life.passes(limit_s + 1) is None
    assert life.passes(1) == Unhealthy(f"has shown no sign of life for {limit_s} s")


def test_the_time_before_the_first_heartbeat_has_a_minimum() -> None:
    life = Life(WorkerState.LOADING)
    life.health = HealthCheck(SETTINGS.model_copy(update={"alive_s": 2.0}))
    life.stopped |= {"parent": "", "child": ""}
    assert life.passes(61) is None
    assert life.passes(1) == Unhealthy("has shown no sign of life for 60 s")


@pytest.mark.parametrize(("sign", "limit_s"), [("child", 120), ("parent", 30)])
def test_processor_time_is_a_sign_of_life_while_a_process_starts_and_load_s_limits_that(
    sign: str, limit_s: int
) -> None:
    life = Life(WorkerState.LOADING)
    life.stop("steps", sign)
    if sign == "child":
        life.stopped |= {"parent": "", "child": ""}
    moving = f"{sign}_cpu"
    for second in range(0, 700, 20):
        life.stopped[moving] = second
        assert life.passes(20) is None
    assert life.passes(limit_s - 18) == Unhealthy(f"has shown no sign of life for {limit_s} s")
    life = Life(WorkerState.LOADING)
    life.stop("steps", sign)
    for second in range(0, 900, 20):
        life.stopped[moving] = second
        assert life.passes(20) is None
    life.stopped[moving] = 900
    assert life.passes(20) == Unhealthy("has been loading for more than 900 s")


def test_a_parent_that_freezes_while_the_model_loads_is_found(dead_pid: int) -> None:
    life = Life(WorkerState.LOADING)
    life.stop("parent")
    assert life.passes(40) == Unhealthy("has shown no sign of life for 30 s")
    # But not before its first heartbeat.
    life = Life(WorkerState.LOADING)
    life.stopped["parent"] = ""
    assert life.passes(120) is None


def test_a_child_that_has_died_is_not_frozen_celery_replaces_it(dead_pid: int) -> None:
    life = Life(WorkerState.BUSY, child_pid=dead_pid)
    life.stop("child", "steps")
    assert life.passes(120) is None


def test_a_worker_whose_children_die_before_one_has_loaded_is_unhealthy_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("launcher.health.exists", lambda pid: pid > 0)
    life = Life(WorkerState.LOADING)
    for pid in range(10, 15):
        life.child_pid = pid
        assert life.passes(2) is None
    # This one loads, which resets the count.
    life.state = str(WorkerState.READY)
    assert life.passes(2) is None
    life.state = str(WorkerState.LOADING)
    for pid in range(20, 25):
        life.child_pid = pid
        assert life.passes(2) is None
    life.child_pid = 25
    assert life.passes(1) == Unhealthy("lost 5 model processes before one had loaded", is_permanent=True)


def test_a_heartbeat_names_its_process_or_none() -> None:
    assert [pid_of(text) for text in ("", "junk", "-1 2", "12 3")] == [0, 0, 0, 12]
    assert not exists(0)
    assert exists(ME)


def computing(pid: int) -> Iterator[None]:
    """Each time that a process has used more processor time since the last was handled."""
    seen = -1
    while True:
        while cpu_times({pid})[pid][pid] == seen:
            pass
        yield
        seen = cpu_times({pid})[pid][pid]


class TestHealthMonitor:
    @pytest.fixture
    def monitor(self, redis: Redis) -> HealthMonitor:
        monitor = HealthMonitor(SETTINGS, Registry(redis, RedisKeys("main"), 30))
        monitor.add("cpu.0@box", RedisKeys("main").worker("cpu.0@box"))
        self.beat(redis, 0)
        redis.hset(RedisKeys("main").worker("cpu.0@box"), mapping={"state": "ready", "steps": "1"})
        return monitor

    @staticmethod
    def beat(redis: Redis, number: int, *parts: str) -> None:
        for part in parts or (PARENT, CHILD):
            redis.hset(
                RedisKeys("main").process_heartbeats,
                RedisKeys("main").process_heartbeat("cpu.0@box", part),
                f"{ME} {number}",
            )

    @staticmethod
    def check(monitor: HealthMonitor, seconds: range) -> list[str]:
        worker = expected_worker(SETTINGS, WorkerSettings())
        return [
            unhealthy.reason
            for now in seconds
            for unhealthy in monitor.check({worker.name: worker.queue}, {}, now).values()
        ]

    def test_it_reads_the_heartbeats_of_both_processes(self, redis: Redis, monitor: HealthMonitor) -> None:
        assert self.check(monitor, range(0, 30, 2)) == []
        self.beat(redis, 1, CHILD)
        assert self.check(monitor, range(30, 34, 2))[:1] == ["has shown no sign of life for 30 s"]

    def test_an_outage_or_a_pause_of_its_own_resets_the_timers(self, monitor: HealthMonitor) -> None:
        assert self.check(monitor, range(0, 30, 2)) == []
        monitor.reset()
        assert self.check(monitor, range(30, 60, 2)) == []
        # No check for 30 s.
        assert self.check(monitor, range(90, 120, 2)) == []
        assert self.check(monitor, range(120, 124, 2)) != []

    def test_a_starting_process_is_alive_while_it_computes_and_not_once_it_is_frozen(self, redis: Redis) -> None:
        monitor = HealthMonitor(SETTINGS, Registry(redis, RedisKeys("main"), 30))
        monitor.add("cpu.0@box", RedisKeys("main").worker("cpu.0@box"))
        worker, moments = expected_worker(SETTINGS, WorkerSettings()), range(0, 100_000, 10)
        queues = {worker.name: worker.queue}
        command = [sys.executable, "-c", "while True: pass"]
        with subprocess.Popen(command, start_new_session=True) as process:
            try:
                # Moments pass only when it has computed.
                for now, _ in zip(moments[:30], computing(process.pid), strict=False):
                    assert monitor.check(queues, {"cpu.0@box": process.pid}, now) == {}
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                found = [monitor.check(queues, {"cpu.0@box": process.pid}, now) for now in moments[30:44]]
                assert not any(found[:12])  # it may have computed for a moment after the last check, or not
                assert found[13]
            finally:
                process.kill()

    def test_an_unacknowledged_message_waits_for_the_worker(self, redis: Redis, monitor: HealthMonitor) -> None:
        redis.hset(RedisKeys("main").unacked("cpu.0@box"), "tag", "x")
        for now in range(0, 302, 2):
            self.beat(redis, now)
            assert self.check(monitor, range(now, now + 1)) == []
        self.beat(redis, 302)
        assert "has taken no work" in self.check(monitor, range(302, 303))[0]

    def test_a_process_that_has_ended_is_forgotten(self, redis: Redis, monitor: HealthMonitor) -> None:
        monitor.remove("cpu.0@box")
        assert redis.keys(RedisKeys("main").process_heartbeats) == []
        assert self.check(monitor, range(0, 100, 2)) == []
