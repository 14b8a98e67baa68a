"""What Redis holds of consumers that are gone: nothing is removed that is needed, and in the end all of it."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.names import CHILD, PARENT, reviewer_name
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.counters import Count, Counters
from cloner.state.gone import GoneConsumers
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState
from cloner.state.registry import Registry, expected_reviewer
from tests.support.manifests import manifest
from tests.support.workers import worker_info

SETTINGS = Settings(fleet="test", box="here", batch_ttl_s=1000)
KEYS = RedisKeys("test")
WORKER = worker_info(0)
REVIEWER = reviewer_name("a", 0)
COLLECTOR = "collector@a"


class Scene:
    """A box "a" that was switched off, and the launcher of another one."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis = redis
        self.registry = Registry(redis, KEYS, 30)
        self.gone = GoneConsumers(SETTINGS, redis)
        self.batches = BatchStore.of(SETTINGS, connect(url, decode=False))
        self.registry.register(WORKER)
        self.registry.reviewer_entries.register(expected_reviewer(SETTINGS, REVIEWER))
        GpuUsageTable(redis, KEYS).write([GpuUsage("a", "cpu", "", 1, 2, None)])
        for name in (WORKER.name, REVIEWER, COLLECTOR):
            redis.sadd(KEYS.consumers, name)
            for part in (PARENT, CHILD):
                redis.hset(KEYS.process_heartbeats, KEYS.process_heartbeat(name, part), "12 34")

    def leave(self, *names: str, for_s: float = 1001) -> None:
        """They are found gone, and so much time passes."""
        self.gone.note(names, ())
        for name in names:
            self.redis.zincrby(KEYS.gone, -for_s, name)

    def add_batch(self, age_s: float) -> None:
        """An open batch that was submitted so long ago."""
        submitted_at = float(self.redis.time()[0]) - age_s
        self.batches.add(manifest().model_copy(update={"submitted_at": submitted_at}), "shared", check=lambda: None)


@pytest.fixture
def scene(redis: Redis, valkey_url: str) -> Scene:
    return Scene(redis, valkey_url)


def test_all_that_is_registered_of_a_box_that_does_not_come_back_is_removed(scene: Scene) -> None:
    names = {WORKER.name, REVIEWER, COLLECTOR}
    assert scene.gone.registered() == names
    scene.leave(*names, for_s=999)
    assert scene.gone.forget() == []
    scene.leave(*names, for_s=2)
    assert {*scene.gone.forget()} == names
    assert scene.redis.keys() == []
    assert scene.gone.registered() == set()


def test_its_counters_stay_as_they_are_the_fleets(scene: Scene) -> None:
    counters = Counters(scene.redis, KEYS)
    counters.add(WORKER.name, {Count.SEGMENTS_GENERATED: 7.0})
    before = counters.read()
    scene.leave(WORKER.name)
    assert scene.gone.forget() == [WORKER.name]
    assert counters.read() == before


@pytest.mark.parametrize("queue", [WORKER.queue, "cloner.test.v999.a.cpu.0"])
def test_the_name_of_a_queue_with_a_message_stays(scene: Scene, queue: str) -> None:
    scene.redis.hset(KEYS.worker_queues, queue, WORKER.name)
    scene.redis.lpush(queue, "message")
    scene.leave(WORKER.name)
    assert scene.gone.forget() == []
    assert scene.registry.worker_queues()[queue] == WORKER.name
    assert scene.registry.get(WORKER.name) == WORKER
    scene.redis.delete(queue)
    assert scene.gone.forget() == [WORKER.name]


@pytest.mark.parametrize("name", [WORKER.name, REVIEWER, COLLECTOR])
def test_a_consumer_with_an_unacknowledged_message_stays(scene: Scene, name: str) -> None:
    scene.redis.hset(KEYS.unacked(name), "tag", "message")
    scene.leave(name)
    assert scene.gone.forget() == []
    assert scene.redis.sismember(KEYS.consumers, name)
    scene.redis.delete(KEYS.unacked(name))
    assert scene.gone.forget() == [name]


def test_while_a_batch_is_open_that_may_send_it_a_chunk_a_worker_stays(scene: Scene) -> None:
    scene.leave(WORKER.name, for_s=5000)
    scene.add_batch(age_s=4001)  # by a client that took 999 s from its choice of workers on
    assert scene.gone.forget() == []
    scene.batches.set_running("b")
    scene.batches.cancel("b")
    assert scene.gone.forget() == [], "it is not closed yet"
    scene.redis.hset(KEYS.batch("b"), "state", BatchState.DONE)
    assert scene.gone.forget() == [WORKER.name]


def test_later_batches_do_not_hinder_it(scene: Scene) -> None:
    scene.leave(WORKER.name, for_s=5000)
    scene.add_batch(age_s=3999)
    assert scene.gone.forget() == [WORKER.name]


def test_a_box_that_is_back_after_a_day_is_not_gone_for_any_time(scene: Scene) -> None:
    scene.leave(WORKER.name, REVIEWER, for_s=999)
    scene.registry.register(WORKER)
    scene.gone.note((), [REVIEWER, "other"])
    assert scene.redis.zrange(KEYS.gone, 0, -1) == []


def test_a_worker_that_enters_itself_again_meanwhile_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the launcher's look at what is gone, and the removal of that."""
    scene.leave(WORKER.name)
    is_back = {**vars(WORKER), "pid": 7}

    def come_back() -> float:
        scene.registry.register(type(WORKER)(**is_back))
        return float("inf")

    monkeypatch.setattr(scene.gone._batches, "oldest_open", come_back)
    assert scene.gone.forget() == []
    assert scene.registry.get(WORKER.name) == type(WORKER)(**is_back)
    assert scene.registry.worker_queues() == {WORKER.queue: WORKER.name}


def test_what_is_noted_stays_as_it_is_noted_first(scene: Scene) -> None:
    scene.leave(WORKER.name, for_s=500)
    before = scene.redis.zscore(KEYS.gone, WORKER.name)
    scene.gone.note([WORKER.name], [])
    assert scene.redis.zscore(KEYS.gone, WORKER.name) == before
