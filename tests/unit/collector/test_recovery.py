"""Which open batches are stalled: none of their messages is in a queue or in flight."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from redis import Redis

from cloner.collector.recovery import resume_batch, stalled_batches
from cloner.events import Event
from cloner.names import (
    OPEN_BATCH,
    REVIEW_TAKE,
    SCHEMA,
    SPEAK_CHUNK,
    batch_of_task,
    collector_name,
    new_task_id,
    reviewer_name,
)
from cloner.queueing.app import make_app, send_to_collector
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.cleanup import chord_id
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.progress import Round
from tests.support.log_lines import find_lines
from tests.support.manifests import manifest

WORKER = "cpu.0@box"

WRONG: dict[Any, Any] = {
    "1": "bb",
    "2": "[]",
    "3": '[{"headers": {"id": null}}]',
    "4": b'[{"headers": {"id": "\xff"}}]',
}
"""What no process has noted as unacknowledged."""


class Fleet:
    """A fleet with two open batches, and no process."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis = redis
        self.settings = Settings(redis_url=url, fleet="main")
        self.keys = RedisKeys(self.settings.fleet)
        self._blobs = connect(url, decode=False)
        self.batches = BatchStore.of(self.settings, self._blobs)
        for batch_id in ("b", "bb"):
            self.batches.add(manifest().model_copy(update={"batch_id": batch_id}), "round-robin", check=lambda: None)
            self.batches.set_sent(batch_id, 0)

    def stalled(self) -> list[str]:
        return list(stalled_batches(self.redis, self._blobs, self.settings))

    def send_review(self, task_id: str, samples: int = 100_000) -> None:
        """As the collector does, with more samples than are read."""
        queue, message = self.settings.queues.review_queue, {"audio": "A" * samples, "text": '"id": "bb.r1.0"'}
        app = make_app(self.settings)
        app.send_task(REVIEW_TAKE, (message,), queue=queue, task_id=task_id, ignore_result=True)

    def send_chunk(self, task_id: str, queue: str) -> None:
        make_app(self.settings).send_task(SPEAK_CHUNK, ({},), queue=queue, task_id=task_id, ignore_result=True)

    def take(self, task_id: str, consumer: str = WORKER) -> None:
        """Note a message as in flight, as the transport does when a consumer takes it."""
        self.redis.sadd(self.keys.consumers, consumer)
        message = {"headers": {"id": task_id}, "body": "bb"}
        self.redis.hset(self.keys.unacked(consumer), task_id, json.dumps([message, "", "queue"]))


@pytest.fixture
def fleet(redis: Redis, valkey_url: str) -> Fleet:
    return Fleet(redis, valkey_url)


def test_batches_without_messages_are_stalled(fleet: Fleet) -> None:
    assert fleet.stalled() == ["b", "bb"]


@pytest.mark.parametrize("task_id", ["b.7", "b.close", f"{chord_id('b', 2)}.7", new_task_id("b")], ids=range(4))
def test_a_batch_with_a_message_in_flight_is_not_stalled(fleet: Fleet, task_id: str) -> None:
    fleet.take(task_id)
    assert batch_of_task(task_id) == "b"
    assert fleet.stalled() == ["bb"]


def test_messages_of_every_consumer_count(fleet: Fleet) -> None:
    fleet.take("b.7", WORKER)
    fleet.take("bb.close", "collector@box")
    assert fleet.stalled() == []


def test_samples_that_reviewers_have_in_flight_are_not_read(fleet: Fleet) -> None:
    """And the message is noted as the transport does it."""
    fleet.send_review(f"{chord_id('b', 1)}.0", samples=5_000_000)
    reviewer = reviewer_name("box", 0)
    app = make_app(fleet.settings, reviewer, [REVIEW_TAKE])
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(fleet.settings.queues.review_queue)
        queue.get(timeout=30)
        before = fleet.redis.info("stats")["total_net_output_bytes"]
        assert fleet.stalled() == ["bb"]
        assert fleet.redis.info("stats")["total_net_output_bytes"] - before < 1_000_000
        queue.close()


def test_what_cannot_be_read_belongs_to_no_batch(fleet: Fleet) -> None:
    fleet.redis.sadd(fleet.keys.consumers, WORKER)
    fleet.redis.hset(fleet.keys.unacked(WORKER), mapping=WRONG)
    assert fleet.stalled() == ["b", "bb"]


def test_a_batch_whose_message_waits_for_the_collector_is_not_stalled(fleet: Fleet) -> None:
    send_to_collector(make_app(fleet.settings), fleet.settings.queues, OPEN_BATCH, "b")
    assert fleet.stalled() == ["bb"]


@pytest.mark.parametrize("queue", ["the worker's", "the shared"])
def test_work_of_another_batch_keeps_none_from_being_stalled(fleet: Fleet, queue: str) -> None:
    """A fleet that always has work would never resume one."""
    queues = fleet.settings.queues
    own = queues.worker_queue("box", "cpu", 0)
    fleet.redis.hset(fleet.keys.worker_queues, own, WORKER)
    chunks_of_others = 3
    for number in range(chunks_of_others):
        fleet.send_chunk(f"other.{number}", own if queue == "the worker's" else queues.shared_queue())
    assert fleet.stalled() == ["b", "bb"]
    fleet.send_chunk("bb.0", own if queue == "the worker's" else queues.shared_queue())
    assert fleet.stalled() == ["b"]
    assert fleet.batches.begin_round("bb", Round(1, (), reviews=3), {}, 1)
    fleet.take("bb.0")
    assert fleet.stalled() == ["b"]


def test_a_round_that_is_not_sent_as_a_whole_is_stalled_although_some_of_it_is_under_way(fleet: Fleet) -> None:
    """As of a collector that was stopped meanwhile."""
    assert fleet.batches.begin_round("b", Round(1), {}, 1)
    fleet.take(f"{chord_id('b', 1)}.0")
    fleet.take("bb.0")
    assert fleet.stalled() == ["b"]
    fleet.take("b.close", collector_name("box"))  # it is at work on it
    assert fleet.stalled() == []
    fleet.redis.delete(fleet.keys.unacked(collector_name("box")))
    fleet.batches.set_sent("b", 1)
    assert fleet.stalled() == []


def test_what_is_left_for_reviewers_keeps_no_other_batch_from_being_stalled(fleet: Fleet) -> None:
    fleet.send_review("closed.r1.0")
    assert fleet.stalled() == ["b", "bb"]


def test_a_batch_whose_takes_wait_for_reviewers_is_not_stalled(fleet: Fleet) -> None:
    for batch_id in ("b", "bb"):
        assert fleet.batches.begin_round(batch_id, Round(1, (), reviews=1), {}, 1)
    fleet.send_review(f"{chord_id('b', 1)}.0")
    assert fleet.stalled() == ["bb"]


def test_a_batch_that_waits_for_its_review_is_not_stalled(fleet: Fleet) -> None:
    assert fleet.batches.begin_round("b", Round(1, (), waits=True), {}, 1)
    assert fleet.stalled() == ["bb"]


def test_keys_of_others_in_the_same_redis_are_not_read(fleet: Fleet) -> None:
    fleet.redis.mset({f"theirs:{number}": "b" for number in range(100)})
    fleet.redis.hset("cloner:other:unacked:cpu.0@box", "b.7", "b.7")
    fleet.redis.config_resetstat()
    assert fleet.stalled() == ["b", "bb"]
    assert not {"cmdstat_scan", "cmdstat_keys"} & fleet.redis.info("commandstats").keys()


def test_the_transport_notes_who_has_taken_a_message(fleet: Fleet) -> None:
    app = make_app(fleet.settings, WORKER, ["cloner.speak_chunk"])
    app.send_task("cloner.speak_chunk", ({},), queue="q", task_id="b.7", ignore_result=True)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("q")
        queue.get(timeout=30)
        assert fleet.redis.smembers(fleet.keys.consumers) == {WORKER}
        assert fleet.stalled() == ["bb"]
        queue.close()


@pytest.mark.parametrize("damaged", ["manifest", "round"])
def test_a_stalled_batch_that_cannot_be_read_is_left_as_it_is_with_one_warning(
    fleet: Fleet, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fleet of another version may run beside this one."""
    if damaged == "manifest":
        fleet.redis.set(fleet.keys.manifest("b"), zlib.compress(json.dumps({"schema_version": SCHEMA - 1}).encode()))
    else:
        fleet.redis.hset(fleet.keys.batch("b"), "round", "{}")
    fleet.take("bb.0")
    for _ in range(3):
        assert fleet.stalled() == ["b"]
        resume_batch(make_app(fleet.settings), fleet.batches, fleet.settings.queues, "b")
    (warning,) = find_lines(capsys.readouterr().err.splitlines(), Event.STALLED_BATCH_NOT_RESUMED, batch="b")
    if damaged == "manifest":
        assert f"is of schema version {SCHEMA - 1}, and this process reads version {SCHEMA}: install one" in warning
    assert fleet.redis.llen(fleet.settings.queues.collector_queue) == 0
    assert fleet.batches.is_open("b")
    fleet.take("b.0")
    assert fleet.stalled() == []
