"""When somebody counts as frozen or hanging, and when not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from redis import Redis

from cloner.names import CHILD, PARENT
from cloner.settings import Settings, WorkerSettings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerState, expected_worker
from launcher.health import HealthCheck, Unhealthy, Vitals, Watch, exists, pid_of

SETTINGS = Settings(alive_s=30, hang_s=300, load_s=900, heartbeat_s=2)
ME = os.getpid()


@pytest.fixture(scope="module")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


class Life:
    """A worker whose signs change by the second, but for those that stand still."""

    def __init__(self, state: WorkerState | str = WorkerState.BUSY, child_pid: int = ME) -> None:
        self.vigil = HealthCheck(SETTINGS)
        self.now = 0
        self.state = str(state)
        self.child_pid = child_pid
        self.waiting = 1
        self.still: dict[str, str] = {}

    def signs(self) -> Vitals:
        moving = Vitals(f"{ME} {self.now}", f"{self.child_pid} {self.now}", self.state, str(self.now), self.waiting)
        return replace(moving, **self.still)  # type: ignore[arg-type]

    def stop(self, *names: str) -> None:
        self.still |= {name: getattr(self.signs(), name) for name in names}

    def passes(self, seconds: int) -> Unhealthy | None:
        """Look every second; the first finding, if there is one."""
        for _ in range(seconds):
            self.now += 1
            if finding := self.vigil.plan_after_crashes(self.signs(), float(self.now)):
                return finding
        return None


def test_who_shows_life_and_takes_steps_is_let_alone() -> None:
    assert Life(WorkerState.BUSY).passes(2000) is None
    assert Life(WorkerState.READY).passes(2000) is None
    collector = Life("")
    collector.stop("steps")
    assert collector.passes(2000) is None


@pytest.mark.parametrize("sign", ["parent", "child"])
def test_who_stands_still_is_found_frozen_after_alive_s(sign: str) -> None:
    life = Life(WorkerState.READY)
    life.stop(sign)
    assert life.passes(31) is None
    assert life.passes(1) == Unhealthy("has shown no sign of life for 30 s")


def test_who_is_busy_without_a_step_hangs_and_a_step_in_time_saves_it() -> None:
    life = Life(WorkerState.BUSY)
    life.stop("steps")
    assert life.passes(300) is None
    life.stop("steps")
    life.still["steps"] = "one more"
    assert life.passes(301) is None
    assert life.passes(1) == Unhealthy("has been busy for 300 s without a step")


def test_who_is_ready_and_takes_nothing_of_what_waits_is_deaf() -> None:
    life = Life(WorkerState.READY)
    life.stop("steps")
    life.waiting = 0
    assert life.passes(2000) is None
    life.waiting = 3
    assert life.passes(301) is None
    assert life.passes(1) == Unhealthy("has taken no work for 300 s, and some waits for it")


def test_a_load_may_take_its_time_and_no_longer() -> None:
    life = Life(WorkerState.LOADING)
    life.stop("steps")
    assert life.passes(901) is None
    assert life.passes(1) == Unhealthy("has been loading for more than 900 s")


@pytest.mark.parametrize(("first_sign", "patience"), [(True, 300), (False, 120)])
def test_a_child_that_freezes_while_it_loads_is_found_and_sooner_before_its_first_sign(
    first_sign: bool, patience: int
) -> None:
    life = Life(WorkerState.LOADING)
    life.stop("child", "steps")
    if not first_sign:
        life.still["child"] = ""
    assert life.passes(patience + 1) is None
    assert life.passes(1) == Unhealthy(f"has shown no sign of life for {patience} s")


def test_a_parent_that_freezes_while_the_model_loads_is_found(dead_pid: int) -> None:
    life = Life(WorkerState.LOADING)
    life.stop("parent")
    assert life.passes(40) == Unhealthy("has shown no sign of life for 30 s")
    # But not before it has shown the first.
    life = Life(WorkerState.LOADING)
    life.still["parent"] = ""
    assert life.passes(120) is None


def test_a_child_that_has_died_is_not_frozen_celery_replaces_it(dead_pid: int) -> None:
    life = Life(WorkerState.BUSY, child_pid=dead_pid)
    life.stop("child", "steps")
    assert life.passes(120) is None


def test_a_worker_whose_children_die_before_one_has_loaded_is_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.health.exists", lambda pid: pid > 0)
    life = Life(WorkerState.LOADING)
    for pid in range(10, 15):
        life.child_pid = pid
        assert life.passes(2) is None
    # This one loads: they are counted anew.
    life.state = str(WorkerState.READY)
    assert life.passes(2) is None
    life.state = str(WorkerState.LOADING)
    for pid in range(20, 25):
        life.child_pid = pid
        assert life.passes(2) is None
    life.child_pid = 25
    assert life.passes(1) == Unhealthy("lost 5 model processes before one had loaded", is_hopeless=True)


def test_pulses_of_no_process() -> None:
    assert [pid_of(text) for text in ("", "junk", "-1 2", "12 3")] == [0, 0, 0, 12]
    assert not exists(0)
    assert exists(ME)


class TestWatch:
    @pytest.fixture
    def watch(self, redis: Redis) -> Watch:
        watch = Watch(SETTINGS, Registry(redis, RedisKeys("main"), 30))
        watch.begin("cpu.0@box")
        self.show(redis, 0)
        redis.hset(RedisKeys("main").worker("cpu.0@box"), mapping={"state": "ready", "steps": "1"})
        return watch

    @staticmethod
    def show(redis: Redis, number: int, *parts: str) -> None:
        for part in parts or (PARENT, CHILD):
            redis.hset(
                RedisKeys("main").process_heartbeats,
                RedisKeys("main").process_heartbeat("cpu.0@box", part),
                f"{ME} {number}",
            )

    @staticmethod
    def look(watch: Watch, seconds: range) -> list[str]:
        worker = expected_worker(SETTINGS, WorkerSettings())
        return [finding.reason for now in seconds for finding in watch.look([worker], now).values()]

    def test_it_reads_what_the_processes_show(self, redis: Redis, watch: Watch) -> None:
        assert self.look(watch, range(0, 30, 2)) == []
        self.show(redis, 1, CHILD)
        assert self.look(watch, range(30, 34, 2))[:1] == ["has shown no sign of life for 30 s"]

    def test_after_an_outage_or_a_sleep_of_its_own_patience_starts_anew(self, watch: Watch) -> None:
        assert self.look(watch, range(0, 30, 2)) == []
        watch.start_anew()
        assert self.look(watch, range(30, 60, 2)) == []
        # Nothing was seen in between.
        assert self.look(watch, range(90, 120, 2)) == []
        assert self.look(watch, range(120, 124, 2)) != []

    def test_a_message_in_its_hand_waits_for_it(self, redis: Redis, watch: Watch) -> None:
        redis.hset(RedisKeys("main").unacked("cpu.0@box"), "tag", "x")
        for now in range(0, 302, 2):
            self.show(redis, now)
            assert self.look(watch, range(now, now + 1)) == []
        self.show(redis, 302)
        assert "has taken no work" in self.look(watch, range(302, 303))[0]

    def test_who_has_ended_is_forgotten(self, redis: Redis, watch: Watch) -> None:
        watch.end("cpu.0@box")
        assert redis.keys(RedisKeys("main").process_heartbeats) == []
        assert self.look(watch, range(0, 100, 2)) == []
