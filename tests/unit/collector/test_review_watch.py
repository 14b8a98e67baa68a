"""Reviews without an answer to wait for end: no reviewer is alive, or the batch is cancelled."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any
from unittest.mock import Mock, call

import pytest
from redis import Redis

from cloner.collector import review_turns, review_watch
from cloner.collector.in_flight import batches_in_queue
from cloner.collector.recovery import resume_batch
from cloner.collector.review_watch import ReviewWatch
from cloner.names import CLOSE_BATCH, REVIEW_TAKE, collector_name, reviewer_name
from cloner.queueing.app import make_app, send_to_collector
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState, Round
from cloner.state.registry import Registry, ReviewerInfo
from tests.support.manifests import manifest

ALIVE_S = 30.0


class Scene:
    """An open batch, and the collector's queue, which no process reads."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis = redis
        self.settings = Settings(redis_url=url, fleet="main", alive_s=ALIVE_S)
        self.blobs = connect(url, decode=False)
        self.batches = BatchStore.of(self.settings, self.blobs)
        self.registry = Registry(redis, RedisKeys("main"), ALIVE_S)
        self.now_s = 0.0
        self.app = make_app(self.settings)
        self.watch = ReviewWatch(self.app, self.settings.queues, ALIVE_S, lambda: self.now_s)
        self.batches.add(manifest(), "round-robin", check=lambda: None)
        self.batches.set_running("b")

    def begin(self, following: Round, batch_id: str = "b") -> None:
        assert self.batches.begin_round(batch_id, following, {}, 1)

    def add(self, batch_id: str, following: Round) -> None:
        """Another batch, which was submitted later."""
        other = manifest().model_copy(update={"batch_id": batch_id, "submitted_at": 2.0})
        self.batches.add(other, "round-robin", check=lambda: None)
        self.begin(following, batch_id)

    def register_reviewer(self) -> None:
        self.registry.reviewer_entries.register(ReviewerInfo(name="reviewer-0@box", box="box", words=False))

    def scan_after(self, seconds: float) -> list[dict[str, Any]]:
        """What the collector is sent: the tasks' arguments."""
        self.now_s += seconds
        self.watch.scan(self.batches, self.registry, self.blobs)
        return self.sent()

    def sent(self) -> list[dict[str, Any]]:
        messages = self.redis.lrange(self.settings.queues.collector_queue, 0, -1)
        self.redis.delete(self.settings.queues.collector_queue)
        return [json.loads(b64decode(json.loads(message)["body"]))[1] for message in messages]


@pytest.fixture
def scene(redis: Redis, valkey_url: str) -> Scene:
    return Scene(redis, valkey_url)


ENDED = {"batch_id": "b", "ended": 1, "end_review": True}
GOES_ON = {"batch_id": "b", "ended": 1, "end_review": False}


def test_a_review_ends_when_no_reviewer_has_been_alive_for_so_long(scene: Scene) -> None:
    scene.begin(Round(1, (), reviews=2))
    assert scene.scan_after(ALIVE_S - 1) == []
    assert scene.scan_after(1) == [ENDED]


def test_a_reviewer_that_is_back_in_time_goes_on(scene: Scene) -> None:
    scene.begin(Round(1, (), reviews=2))
    scene.scan_after(ALIVE_S - 1)
    scene.register_reviewer()
    assert scene.scan_after(ALIVE_S) == []
    assert scene.scan_after(ALIVE_S) == []


def test_chunks_need_no_reviewer(scene: Scene) -> None:
    assert scene.scan_after(ALIVE_S) == []
    scene.begin(Round(1, (7,), again=True))
    scene.batches.cancel("b")
    assert scene.scan_after(ALIVE_S) == []


def test_the_review_of_a_batch_that_is_cancelled_ends_at_once(scene: Scene) -> None:
    scene.register_reviewer()
    scene.begin(Round(1, (), reviews=2))
    scene.batches.cancel("b")
    assert scene.scan_after(1) == [ENDED]


def test_what_is_left_for_reviewers_of_a_batch_that_is_cancelled_is_removed(scene: Scene) -> None:
    scene.register_reviewer()
    for batch_id in ("b", "bb"):
        scene.app.send_task(REVIEW_TAKE, queue=scene.settings.queues.review_queue, task_id=f"{batch_id}.r1.0")
    scene.begin(Round(1, (), reviews=1))
    scene.scan_after(1)
    assert scene.redis.llen(scene.settings.queues.review_queue) == 2
    scene.batches.cancel("b")
    scene.scan_after(1)
    assert batches_in_queue(scene.blobs, scene.settings.queues.review_queue) == {"bb"}


def test_a_batch_that_has_waited_goes_on_when_another_one_is_reviewed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_turns, "MOST_BATCHES", 1)
    scene.register_reviewer()
    scene.begin(Round(1, (), waits=True))
    scene.add("c", Round(1, (), waits=True))
    scene.add("d", Round(1, (), reviews=2))
    assert scene.scan_after(1) == []
    scene.begin(Round(2, (7,), again=True), "d")
    assert scene.scan_after(1) == [GOES_ON]
    scene.begin(Round(2, (), reviews=2))
    assert scene.scan_after(1) == []
    scene.batches.set_broken("b", "its collector has died")
    assert scene.scan_after(1) == [GOES_ON | {"batch_id": "c"}]


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_review_that_waits_ends_as_others(scene: Scene, cancelled: bool) -> None:
    scene.begin(Round(1, (), waits=True))
    if cancelled:
        scene.batches.cancel("b")
    assert scene.scan_after(1 if cancelled else ALIVE_S) == [ENDED]


def test_a_batch_of_which_the_collector_has_a_message_to_read_gets_no_other(scene: Scene) -> None:
    scene.begin(Round(1, (), reviews=2))
    scene.add("c", Round(1, (), reviews=2))
    send_to_collector(scene.app, scene.settings.queues, CLOSE_BATCH, "c", ended=1)
    ended = {"batch_id": "c", "ended": 1}
    assert scene.scan_after(ALIVE_S) == [ENDED, ended]  # the queue is read from its other end
    assert scene.scan_after(1) == [ENDED | {"batch_id": "c"}, ENDED]


def test_open_batches_are_kept_however_long_a_round_lasts(scene: Scene) -> None:
    scene.register_reviewer()
    scene.add("c", Round(1))
    scene.begin(Round(1, (), waits=True))
    keys = scene.registry.keys
    lasting = [key(batch_id) for batch_id in ("b", "c") for key in (keys.batch, keys.manifest, keys.progress)]
    for key in lasting:
        scene.redis.expire(key, 60)
    scene.scan_after(1)
    assert [scene.redis.ttl(key) > 60 for key in lasting] == [True] * 6


def test_without_reviewers_their_queue_is_removed_at_once_and_not_searched_for_each_batch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Mock()
    monkeypatch.setattr(review_watch, "remove_from_queue", search)
    scene.begin(Round(1, (), reviews=1))
    scene.add("c", Round(1, (), waits=True))
    scene.redis.lpush(scene.settings.queues.review_queue, "of a batch that is closed")
    assert len(scene.scan_after(ALIVE_S)) == 2
    assert not scene.redis.exists(scene.settings.queues.review_queue)
    scene.register_reviewer()
    scene.batches.cancel("b")
    scene.batches.cancel("c")  # it has sent nothing
    assert len(scene.scan_after(1)) == 2
    assert search.call_args_list == [call(scene.blobs, scene.settings.queues.review_queue, "b")]


def test_a_batch_whose_round_another_collector_ends_at_this_moment_gets_no_other_message(scene: Scene) -> None:
    scene.begin(Round(1, (), reviews=2))
    message = json.dumps([{"headers": {"id": "b.close"}}, "", scene.settings.queues.collector_queue])
    keys, other = scene.registry.keys, collector_name("other")
    scene.redis.sadd(keys.consumers, other, reviewer_name("other", 0))
    scene.redis.hset(keys.unacked(other), "tag", message)
    assert scene.scan_after(ALIVE_S) == []
    scene.redis.delete(keys.unacked(other))
    scene.redis.hset(keys.unacked(reviewer_name("other", 0)), "tag", message)  # of a dead reviewer
    assert scene.scan_after(1) == [ENDED]


def test_what_is_left_for_reviewers_is_removed_when_none_is_alive(scene: Scene) -> None:
    queue = scene.settings.queues.review_queue
    scene.redis.lpush(queue, "of a batch that is closed")
    scene.scan_after(ALIVE_S - 1)
    assert scene.redis.llen(queue) == 1
    scene.scan_after(1)
    assert scene.redis.llen(queue) == 0


def test_a_stalled_review_goes_on_although_no_chunk_is_finished(scene: Scene) -> None:
    scene.begin(Round(1, (), reviews=2))
    assert scene.batches.progress("b").state is BatchState.RUNNING
    resume_batch(scene.app, scene.batches, scene.settings.queues, "b")
    assert scene.sent() == [{"batch_id": "b", "ended": 1}]
