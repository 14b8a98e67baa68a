"""Vitals of life of a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from cloner.process import LEASE
from cloner.state.keys import RedisKeys
from tests.integration.conftest import eventually

BEATS = """
import signal
from cloner.logs import configure
from cloner.queueing.heartbeat import start_heartbeat
from cloner.settings import load_settings
configure()
start_heartbeat(load_settings(), "cpu.0@box", "parent")
while True:
    signal.pause()
"""
KEYS = RedisKeys("main")
FIELD = KEYS.process_heartbeat("cpu.0@box", "parent")
BOX = KEYS.box_lease("box")

Start = Callable[[dict[str, str]], subprocess.Popen[str]]


@pytest.fixture
def start(redis: Redis, valkey_url: str) -> Iterator[Start]:
    started = []

    def start(told: dict[str, str]) -> subprocess.Popen[str]:
        env = {**os.environ, "CLONER_REDIS_URL": valkey_url, "CLONER_HEARTBEAT_S": "0.05", **told}
        command = [sys.executable, "-c", BEATS]
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pulse(redis: Redis) -> str:
    return str(redis.hget(KEYS.process_heartbeats, FIELD))


def test_a_pulse_tells_the_process_and_goes_on_when_that_does(redis: Redis, start: Start) -> None:
    process = start({})
    eventually(lambda: pulse(redis).startswith(f"{process.pid} "))
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    frozen = pulse(redis)
    os.kill(process.pid, signal.SIGCONT)
    eventually(lambda: pulse(redis) != frozen)


def test_a_process_ends_when_another_launcher_than_its_own_has_the_box(redis: Redis, start: Start) -> None:
    redis.set(BOX, "mine")
    process = start({LEASE: "mine"})
    eventually(lambda: redis.hexists(KEYS.process_heartbeats, FIELD))
    redis.delete(BOX)  # lapsed in an outage, say: it goes on
    before = pulse(redis)
    eventually(lambda: pulse(redis) != before)
    redis.set(BOX, "another's")
    assert process.wait(60) == -signal.SIGKILL
    assert process.stderr
    assert process.stderr.read() == "Another launcher has taken over this box: ending at once\n"


def test_a_process_that_was_started_by_hand_belongs_to_nobody(redis: Redis, start: Start) -> None:
    redis.set(BOX, "some launcher's")
    start({})
    eventually(lambda: int(pulse(redis).partition(" ")[2] or 0) >= 5)
