"""Heartbeats of a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from cloner.process import LEASE
from cloner.state.keys import RedisKeys
from tests.support.polling import eventually

BEATS = """
import signal
from redis import RedisError
from cloner.logs import configure
from cloner.queueing.heartbeat import Heartbeat
from cloner.settings import load_settings
configure()
heartbeat = Heartbeat(load_settings(), "cpu.0@box", "parent")

def send(registry):
    if registry.redis.incr("sent-with-it") == 2:
        raise RedisError("a beat is missed")

heartbeat.add(send)
while True:
    signal.pause()
"""
KEYS = RedisKeys("main")
FIELD = KEYS.process_heartbeat("cpu.0@box", "parent")
BOX = KEYS.box_lease("box")
HEARTBEAT_S = 0.05

Start = Callable[[dict[str, str]], subprocess.Popen[str]]


@pytest.fixture
def start(redis: Redis, valkey_url: str) -> Iterator[Start]:
    started = []

    def start(overrides: dict[str, str]) -> subprocess.Popen[str]:
        env = {**os.environ, "CLONER_REDIS_URL": valkey_url, "CLONER_HEARTBEAT_S": str(HEARTBEAT_S), **overrides}
        command = [sys.executable, "-c", BEATS]
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def heartbeat(redis: Redis) -> tuple[int, int]:
    """Process id and count of the last heartbeat; zeros before the first."""
    pid, _, count = str(redis.hget(KEYS.process_heartbeats, FIELD) or "0 0").partition(" ")
    return int(pid), int(count)


def test_a_heartbeat_names_its_process_and_stops_while_that_is_frozen(redis: Redis, start: Start) -> None:
    process = start({})
    eventually(lambda: heartbeat(redis)[0] == process.pid)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    time.sleep(2 * HEARTBEAT_S)  # Redis may not have read the last one yet
    frozen = heartbeat(redis)
    time.sleep(10 * HEARTBEAT_S)
    assert heartbeat(redis) == frozen
    os.kill(process.pid, signal.SIGCONT)
    eventually(lambda: heartbeat(redis) > frozen)
    assert heartbeat(redis)[0] == process.pid


def test_a_process_ends_when_another_launcher_than_its_own_has_the_box(redis: Redis, start: Start) -> None:
    redis.set(BOX, "mine")
    process = start({LEASE: "mine"})
    eventually(lambda: redis.hexists(KEYS.process_heartbeats, FIELD))
    redis.delete(BOX)  # as if it had expired in an outage: the process goes on
    before = heartbeat(redis)
    eventually(lambda: heartbeat(redis) != before)
    redis.set(BOX, "another's")
    assert process.wait(60) == -signal.SIGKILL
    assert process.stderr
    assert process.stderr.read() == "Another launcher has taken over this box: ending at once\n"


def test_a_process_that_was_started_by_hand_runs_beside_any_launcher(redis: Redis, start: Start) -> None:
    redis.set(BOX, "some launcher's")
    process = start({})
    eventually(lambda: heartbeat(redis)[1] >= 5)
    # It has compared leases at each of these heartbeats.
    assert process.poll() is None
    assert heartbeat(redis)[0] == process.pid
    assert redis.get(BOX) == "some launcher's"


def test_what_else_is_sent_goes_on_after_an_error(redis: Redis, start: Start) -> None:
    process = start({})
    eventually(lambda: int(str(redis.get("sent-with-it") or 0)) >= 5)
    assert heartbeat(redis)[1] >= 4
    assert process.poll() is None
