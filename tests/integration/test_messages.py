"""A chunk's message is requeued, redelivered or refused, and its segments are generated once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from cloner import Client
from cloner.events import Event
from cloner.names import SPEAK_CHUNK
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.log_lines import fields_of
from tests.support.polling import eventually
from tests.support.processes import Launch
from tests.support.records import recorded_segments
from tests.support.unacked import requeue

pytestmark = pytest.mark.slow

HOLDER = "cpu.0@box"
"""The one worker's name."""


@pytest.fixture
def redis(settings: Settings) -> Redis:
    return connect(settings.require_redis_url())


class OpensDoor:
    """Runs when it is unpickled."""

    def __init__(self, door: Path) -> None:
        self.door = door

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.door,)


@pytest.fixture
def hand(settings: Settings) -> str:
    """The key of the worker's unacknowledged messages, by delivery tag."""
    return RedisKeys(settings.fleet).unacked(HOLDER)


def held(redis: Redis, hand: str) -> list[str]:
    """The worker's unacknowledged messages, as kombu stores them."""
    return [str(message) for message in redis.hvals(hand)]


def test_a_fleet_stopped_in_mid_chunk_gives_the_chunk_back_at_once_and_the_next_one_finishes_it(
    launch: Launch, client: Client, settings: Settings, redis: Redis, hand: str, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    batch = client.submit(write_batch(tmp_path, [30]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=30)
    assert fleet.stop() == 0

    # The chunk was not finished first, the worker not killed, and no message is left unacknowledged.
    assert fleet.find(Event.KILLING) == fleet.find(Event.SPEAKER_COMPLETED) == []
    assert (redis.llen(worker.queue), held(redis, hand)) == (1, [])

    launch("--workers", "1")
    assert batch.wait(timeout=60).generated == 30
    assert recorded_segments(settings, batch.id) == list(range(30))


def test_a_message_that_comes_again_after_its_chunk_is_finished_is_not_run_again(
    launch: Launch, client: Client, settings: Settings, redis: Redis, hand: str, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [5]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=5)
    (message,) = held(redis, hand)
    assert batch.wait(timeout=60).generated == 5

    # As after a worker has died between finishing the chunk and acknowledging it, and the launcher has requeued it.
    (worker,) = client.fleet()
    for tag in ("first", "second", "third"):
        _leave(redis, hand, tag, message)
        assert requeue(redis, HOLDER, fleet=settings.fleet) == 1
        eventually(lambda: not redis.exists(worker.queue, hand))

    # The worker takes messages in order: when the next batch is done, it has taken all before.
    assert client.submit(write_batch(tmp_path, [1], texts={0: "Another text."})).wait(timeout=60).generated == 1
    fleet.wait_for(Event.WORKER_DONE, 2)
    texts = [fields_of(line, Event.SPEAKER_TEXTS)["texts"] for line in fleet.find(Event.SPEAKER_TEXTS)]
    assert texts == ["5", "1"]
    assert len(fleet.find(Event.ASSIGNED)) == len(fleet.find(Event.WORKER_DONE)) == 2


def test_a_pickled_message_is_refused_and_the_worker_lives_on(
    launch: Launch, client: Client, settings: Settings, redis: Redis, hand: str, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    door = tmp_path / "door"
    with make_app(settings).connection_for_write() as connection:
        for headers in ({}, {"task": SPEAK_CHUNK, "id": "pickled", "lang": "py"}):
            connection.Producer().publish(
                OpensDoor(door), serializer="pickle", routing_key=worker.queue, headers=headers
            )
    assert client.submit(write_batch(tmp_path)).wait(timeout=60).generated == 46
    assert not door.exists()
    eventually(lambda: redis.llen(worker.queue) == 0 and held(redis, hand) == [])
    (still,) = client.fleet()
    assert (still.pid, still.loads) == (worker.pid, 1)


def _leave(redis: Redis, hand: str, tag: str, message: str) -> None:
    """Make a message one that the worker has not acknowledged."""
    redis.hset(hand, tag, message)
    redis.zadd(f"{hand}:since", {tag: time.time()})
