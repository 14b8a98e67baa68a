"""A message that kills the processes which have it in flight: after three in a row, it is given to no other."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cloner.names import OPEN_BATCH, SPEAK_CHUNK
from cloner.state.batches import BatchStore
from cloner.state.dead_letters import DeadLetters
from cloner.state.progress import ChunkProgress
from launcher.requeue import KILLS, MAX_DEATHS
from tests.support.hostile_messages import chunk
from tests.support.unacked import KEYS, QUEUE, next_ones, requeue


class Deaths:
    """A message that is taken again and again by workers that die."""

    def __init__(self, redis: Redis, task: str = SPEAK_CHUNK, body: object = None) -> None:
        self.redis = redis
        body = [[chunk(batch_id="b", number=7)], {}, {}] if body is None else body
        self.message: dict[str, Any] = {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "headers": {"id": "b.7", "task": task},
            "properties": {"delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": QUEUE}},
        }
        self.batches = BatchStore(redis, KEYS, 600)
        redis.hset(KEYS.batch("b"), mapping={"state": "running", "total": 1, "chunks": 1})

    def take(self, worker: str = "killed") -> None:
        if found := next_ones(self.redis, QUEUE):
            (self.message,) = found
            self.redis.delete(QUEUE)
        self.redis.hset(KEYS.unacked(worker), "1", json.dumps([self.message, "", QUEUE]))
        self.redis.zadd(KEYS.unacked_since(worker), {"1": 1.0})

    def die(self, worker: str = "killed", *, stopped: bool = False) -> int:
        """Take the message and die; returns how many messages were requeued."""
        self.take(worker)
        return requeue(self.redis, worker, stopped=stopped)

    @property
    def letters(self) -> list[str]:
        return [letter.reason for letter in DeadLetters(self.redis, KEYS).newest_first()]


@pytest.fixture
def deaths(redis: Redis) -> Deaths:
    return Deaths(redis)


def test_a_chunks_message_is_given_up_at_the_third_death_in_a_row_and_so_is_its_chunk(
    deaths: Deaths, redis: Redis
) -> None:
    assert [deaths.die("cpu.0@a"), deaths.die("cpu.1@a"), deaths.die("cpu.0@b")] == [1, 1, 0]
    assert MAX_DEATHS == 3
    assert deaths.letters == [KILLS]
    assert deaths.batches.progress_of("b", 7) == ChunkProgress(finished=True, given_up=True)
    assert sorted(redis.keys()) == sorted([KEYS.dead_letters, KEYS.batch("b"), KEYS.progress("b")])


@pytest.mark.parametrize(
    "progress", [ChunkProgress(runs=1), ChunkProgress(generated=1), ChunkProgress(failed=1), ChunkProgress(frames=7)]
)
def test_progress_of_the_chunk_counts_anew(deaths: Deaths, progress: ChunkProgress) -> None:
    deaths.die()
    deaths.die()
    deaths.batches.report("b", {7: progress})
    assert [deaths.die(), deaths.die(), deaths.die()] == [1, 1, 0]


def test_runs_that_begin_in_between_leave_the_chunk_to_its_journal(deaths: Deaths) -> None:
    for run in range(1, 20):
        deaths.batches.report("b", {7: ChunkProgress(runs=run)})
        assert deaths.die() == 1
    assert deaths.letters == []


def test_a_stop_by_a_signal_is_no_death(deaths: Deaths) -> None:
    deaths.die()
    deaths.die()
    assert deaths.die(stopped=True) == 1
    assert [deaths.die(), deaths.die(), deaths.die()] == [1, 1, 0]


@pytest.mark.parametrize("body", [["no chunk"], [], {}, [[{"batch_id": "../b", "number": 7}], {}, {}]])
def test_a_chunk_that_cannot_be_read_is_given_up_as_a_message_alone(redis: Redis, body: object) -> None:
    deaths = Deaths(redis, body=body)
    assert [deaths.die(), deaths.die(), deaths.die()] == [1, 1, 0]
    assert deaths.letters == [KILLS]
    assert deaths.batches.progress_of("b", 7) is None


def test_a_message_of_the_collector_is_given_up_too(redis: Redis) -> None:
    deaths = Deaths(redis, task=OPEN_BATCH, body=[["b"], {}, {}])
    assert [deaths.die(), deaths.die(), deaths.die()] == [1, 1, 0]
    assert deaths.letters == [KILLS]


def test_damaged_progress_is_none(deaths: Deaths, redis: Redis) -> None:
    redis.hset(KEYS.progress("b"), "7", "junk")
    assert [deaths.die(), deaths.die(), deaths.die()] == [1, 1, 0]
    assert deaths.letters == [KILLS]


def test_progress_of_another_type_is_none(deaths: Deaths, redis: Redis) -> None:
    redis.set(KEYS.progress("b"), "junk")
    assert [deaths.die(), deaths.die(), deaths.die()] == [1, 1, 0]
    assert deaths.letters == [KILLS]


def test_a_message_whose_queue_is_no_list_goes_to_the_dead_letter_list(deaths: Deaths, redis: Redis) -> None:
    redis.set(QUEUE, "text")
    redis.hset(KEYS.unacked("killed"), "1", json.dumps([deaths.message, "", QUEUE]))
    redis.hset(KEYS.unacked("killed"), "2", json.dumps([deaths.message, "", {"a": 1}]))
    redis.zadd(KEYS.unacked_since("killed"), {"1": 1.0, "2": 2.0})
    assert requeue(redis, "killed") == 0
    assert deaths.letters == ["its queue is no list in Redis", "it is not as kombu packs a message"]
    assert redis.get(QUEUE) == "text"


@pytest.mark.parametrize("count", ["a", None, -5, {}, [], True, float("inf"), float("nan")])
def test_a_count_that_another_program_wrote_ends_no_launcher(redis: Redis, count: object) -> None:
    deaths = Deaths(redis)
    deaths.message["headers"]["deaths"] = {"count": count, "progress": ""}
    deaths.die()
    assert len(deaths.letters) + redis.llen(QUEUE) == 1


def test_a_launcher_that_dies_before_the_message_is_moved_loses_nothing(
    deaths: Deaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths.die()
    deaths.die()
    deaths.take()
    with monkeypatch.context() as dying:

        def die(*_: object) -> None:
            raise RedisConnectionError

        dying.setattr(deaths.redis, "eval", die)
        with pytest.raises(RedisConnectionError):
            requeue(deaths.redis, "killed")
    assert deaths.batches.progress_of("b", 7) == ChunkProgress(finished=True, given_up=True)
    assert requeue(deaths.redis, "killed") == 0
    assert deaths.letters == [KILLS]
