"""What becomes of a chunk's message: given back, delivered again, refused; and of the chunk, which is spoken once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from cloner import Client
from cloner.names import SPEAK_CHUNK
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from launcher.recovery import requeue
from tests.integration.conftest import Start, eventually, spoken
from tests.support.batches import write_batch

HOLDER = "cpu.0@box"
"""The one worker."""


@pytest.fixture
def redis(settings: Settings) -> Redis:
    return connect(settings.require_redis_url())


class OpensDoor:
    """What runs when it is unpickled."""

    def __init__(self, door: Path) -> None:
        self.door = door

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.door,)


@pytest.fixture
def hand(settings: Settings) -> str:
    """Celery's key for the messages that the worker has in hand, by tag."""
    return RedisKeys(settings.fleet).unacked(HOLDER)


def held(redis: Redis, hand: str) -> list[str]:
    """The messages that the worker has in hand, as Celery keeps them."""
    return [str(message) for message in redis.hvals(hand)]


def test_a_fleet_stopped_in_mid_chunk_gives_the_chunk_back_at_once_and_the_next_one_finishes_it(
    launch: Start, client: Client, settings: Settings, redis: Redis, hand: str, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for("Models loaded!")
    (worker,) = client.fleet()
    batch = client.submit(write_batch(tmp_path, [30]))
    fleet.wait_for("Speaker 0 progress: 5/30")
    assert fleet.stop() == 0

    # Not finished first, nor killed, nor left in the hand of a worker that is gone.
    assert not any("Killing" in line or "Completed" in line for line in fleet.lines)
    assert (redis.llen(worker.queue), held(redis, hand)) == (1, [])

    launch("--workers", "1")
    assert batch.wait(timeout=60).generated == 30
    assert spoken(settings, batch.id) == list(range(30))


def test_a_message_that_comes_again_after_its_chunk_is_finished_is_not_run_again(
    launch: Start, client: Client, redis: Redis, hand: str, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [5]))
    fleet.wait_for("Speaker 0 progress: 1/5")
    (message,) = held(redis, hand)
    assert batch.wait(timeout=60).generated == 5

    # As a worker leaves it that dies between finishing the chunk and acknowledging it, and its launcher gives it back.
    (worker,) = client.fleet()
    for tag in ("first", "second", "third"):
        _leave(redis, hand, tag, message)
        assert requeue(redis, client.keys, HOLDER) == 1
        eventually(lambda: not redis.exists(worker.queue, hand))

    # The worker takes its messages in order: when the next batch is done, it has seen them all.
    assert client.submit(write_batch(tmp_path, [1], outputs="others")).wait(timeout=60).generated == 1
    fleet.wait_for("All done!", 2)
    assert [line.split("has ")[1] for line in fleet.wait_for("This speaker has")] == ["5 texts", "1 texts"]
    assert len(fleet.wait_for("Assigned")) == len(fleet.wait_for("All done!")) == 2


def test_a_pickled_message_is_refused_and_the_worker_lives_on(
    launch: Start, client: Client, settings: Settings, redis: Redis, hand: str, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for("Models loaded!")
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
    """Put a message into the worker's hand."""
    redis.hset(hand, tag, message)
    redis.zadd(f"{hand}:since", {tag: time.time()})
