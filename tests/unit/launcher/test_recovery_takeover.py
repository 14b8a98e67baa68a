"""Which consumers count as gone, so that their messages are moved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from redis import Redis

from cloner.names import PARENT, QueueNames
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry
from launcher.recovery import MAX_LEASE_S, Takeover
from tests.support.unacked import bodies, message, take

KEYS = RedisKeys("main")
QUEUES = QueueNames("main")
SHARED = QUEUES.shared_queue()


class Fleet:
    """Workers of the launcher's own box "here" and of another one, with a message in each one's queue."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.lines: list[str] = []
        registry = Registry(redis, KEYS, 30)
        self.takeover = Takeover(Settings(box="here", alive_s=30), registry, self.lines.append)
        self.now = 0.0

    def add(self, box: str, number: int) -> str:
        queue, name = QUEUES.worker_queue(box, "cpu", number), f"cpu.{number}@{box}"
        self.redis.hset(KEYS.worker_queues, queue, name)
        self.redis.lpush(queue, json.dumps(message(number, queue)))
        return name

    def heartbeat(self, consumer: str, text: str) -> None:
        self.redis.hset(KEYS.process_heartbeats, KEYS.process_heartbeat(consumer, PARENT), text)

    def scan(self, *kept: str, times: int = 1, before: Callable[[], None] = lambda: None) -> None:
        """Poll `times` times, `alive_s` apart."""
        for _ in range(times):
            before()
            self.takeover.poll(kept, self.now)
            self.now += 30

    def shared(self) -> list[str]:
        return bodies(self.redis, SHARED)


@pytest.fixture
def fleet(redis: Redis) -> Fleet:
    return Fleet(redis)


def test_on_its_own_box_queues_without_a_worker_are_taken_over_at_once(fleet: Fleet) -> None:
    kept, gone = fleet.add("here", 0), fleet.add("here", 1)
    take(fleet.redis, gone, "7", QUEUES.worker_queue("here", "cpu", 1))
    fleet.scan(kept)
    assert fleet.shared() == ["7", "1"]
    assert fleet.lines == ["[Main] cpu.1@here is gone, its messages go to the shared queue: 2"]
    assert fleet.redis.llen(QUEUES.worker_queue("here", "cpu", 0)) == 1
    fleet.scan(kept)
    assert len(fleet.lines) == 1


def test_what_a_reviewer_that_is_gone_had_taken_goes_back_to_the_queue_of_all_reviewers(fleet: Fleet) -> None:
    gone, kept = "reviewer-1@here", "reviewer-0@here"
    for tag, name in enumerate((gone, kept)):
        fleet.redis.sadd(KEYS.consumers, name)
        take(fleet.redis, name, str(tag), QUEUES.review_queue)
    fleet.scan(kept)
    assert bodies(fleet.redis, QUEUES.review_queue) == ["0"]
    assert fleet.lines == ["[Main] reviewer-1@here is gone, its messages go to their queue: 1"]
    assert fleet.redis.hkeys(KEYS.unacked(kept)) == ["1"]


def test_a_worker_of_its_box_that_was_started_by_hand_keeps_its_queue_while_it_lives(fleet: Fleet) -> None:
    by_hand = fleet.add("here", 1)
    beats = iter(range(100))
    fleet.scan(times=3, before=lambda: fleet.heartbeat(by_hand, f"{os.getpid()} {next(beats)}"))
    assert fleet.shared() == []
    fleet.scan()
    assert fleet.shared() == ["1"]


def test_what_a_given_up_worker_is_assigned_afterwards_goes_to_the_shared_queue_too(fleet: Fleet) -> None:
    kept, given_up = fleet.add("here", 0), fleet.add("here", 1)
    fleet.heartbeat(given_up, f"{os.getpid()} 1")
    fleet.takeover.poll([kept, given_up], 0)
    fleet.takeover.give_up(given_up)
    fleet.takeover.poll([kept], 1)
    assert fleet.shared() == ["1"]
    fleet.add("here", 1)
    fleet.takeover.poll([kept], 2)
    assert fleet.shared() == ["1", "1"]


def test_another_boxs_queues_are_taken_over_after_alive_s_without_a_heartbeat(fleet: Fleet) -> None:
    gone = fleet.add("there", 0)
    fleet.heartbeat(gone, "12 34")
    take(fleet.redis, "collector@there", "8", QUEUES.collector_queue)
    fleet.scan()
    assert fleet.shared() == []
    fleet.scan()
    assert fleet.shared() == ["0"]
    assert bodies(fleet.redis, QUEUES.collector_queue) == ["8"]


def test_a_box_that_is_held_or_sends_heartbeats_keeps_its_queues(fleet: Fleet) -> None:
    held, alone = fleet.add("there", 0), fleet.add("elsewhere", 1)
    fleet.redis.set(KEYS.box_lease("there"), "its launcher")
    beats = iter(range(100))
    fleet.scan(times=4, before=lambda: fleet.heartbeat(alone, f"12 {next(beats)}"))
    assert fleet.shared() == []
    fleet.redis.delete(KEYS.box_lease("there"))
    fleet.scan(times=1, before=lambda: fleet.heartbeat(alone, f"12 {next(beats)}"))
    assert fleet.shared() == []
    fleet.scan(times=1, before=lambda: fleet.heartbeat(alone, f"12 {next(beats)}"))
    assert fleet.shared() == ["0"]
    assert held


def test_a_lease_that_a_clock_put_back_has_made_long_is_shortened(fleet: Fleet) -> None:
    fleet.add("there", 0)
    fleet.redis.set(KEYS.box_lease("there"), "its launcher", px=3_600_000)
    fleet.scan()
    assert 0 < fleet.redis.pttl(KEYS.box_lease("there")) <= 1000 * MAX_LEASE_S


def test_after_an_outage_no_consumer_counts_as_gone(fleet: Fleet) -> None:
    fleet.add("there", 0)
    fleet.scan(times=3, before=fleet.takeover.reset)
    assert fleet.shared() == []


def test_queues_of_another_wire_version_are_left_alone(fleet: Fleet) -> None:
    other = "cloner.main.v999.here.cpu.5"
    fleet.redis.hset(KEYS.worker_queues, other, "cpu.5@here")
    fleet.redis.lpush(other, "x")
    fleet.scan(times=3)
    assert fleet.redis.llen(other) == 1


def test_a_box_that_does_not_come_back_is_forgotten(fleet: Fleet) -> None:
    ttl_s = Settings().batch_ttl_s
    mine, gone = fleet.add("here", 0), fleet.add("there", 0)
    for name in (mine, gone, "collector@alone"):
        fleet.redis.sadd(KEYS.consumers, name)
    take(fleet.redis, "collector@alone", "7", QUEUES.collector_queue)
    fleet.scan(mine)
    assert fleet.redis.exists(KEYS.gone) == 0, "at the first scan, it may be alive"
    fleet.scan(mine, times=2)
    assert bodies(fleet.redis, QUEUES.collector_queue) == ["7"]
    assert {*fleet.redis.zrange(KEYS.gone, 0, -1)} == {gone, "collector@alone"}
    fleet.redis.zincrby(KEYS.gone, -ttl_s - 1, gone)
    fleet.redis.set(KEYS.box_lease("there"), "its launcher")
    fleet.scan(mine)
    assert fleet.redis.zrange(KEYS.gone, 0, -1) == ["collector@alone"], "it has come back, after its time"
    fleet.redis.delete(KEYS.box_lease("there"))
    fleet.scan(mine, times=2)
    for name in (gone, "collector@alone"):
        fleet.redis.zincrby(KEYS.gone, -ttl_s - 1, name)
    fleet.scan(mine)
    assert fleet.lines[-2:] == [
        "[Main] collector@alone is gone for good: what was registered of it is removed",
        "[Main] cpu.0@there is gone for good: what was registered of it is removed",
    ]
    assert fleet.redis.hvals(KEYS.worker_queues) == [mine]
    assert fleet.redis.smembers(KEYS.consumers) == {mine}
    assert fleet.redis.exists(KEYS.gone) == 0
    assert fleet.shared() == ["0"], "its message is not lost"


def test_what_its_own_launcher_has_given_up_is_not_forgotten_while_that_lives(fleet: Fleet) -> None:
    kept, given_up, fewer = fleet.add("here", 0), fleet.add("here", 1), fleet.add("here", 2)
    fleet.takeover.give_up(given_up)
    fleet.scan(kept, times=2)
    assert fleet.redis.zrange(KEYS.gone, 0, -1) == [fewer]
    assert fleet.shared() == ["1", "2"]
