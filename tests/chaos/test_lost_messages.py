"""A message is lost: taken out of its queue by a process that died before it noted the message as unacknowledged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


def test_a_batch_whose_chunk_is_lost_is_finished_all_the_same(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.1)
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    batch = client.submit(write_batch(tmp_path, [20, 3, 3]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=20)
    lost = json.loads(str(client.redis.rpop(worker.queue)))["headers"]["id"]
    assert lost == f"{batch.id}.1"
    assert batch.wait(timeout=100).generated == 26
    assert recorded_segments(settings, batch.id) == list(range(26))
    assert fleet.wait_for(Event.STALLED_BATCH_REOPENED, batch=batch.id)


def test_a_lost_chunk_is_sent_again_while_the_fleet_has_other_work(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.5)
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    other = client.submit(write_batch(tmp_path, [400, 3], outputs="other"))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=400)
    batch = client.submit(write_batch(tmp_path, [3]))
    eventually(lambda: client.redis.llen(worker.queue) == 2)
    lost = json.loads(str(client.redis.lpop(worker.queue)))["headers"]["id"]
    assert lost == f"{batch.id}.0"
    fleet.wait_for(Event.STALLED_BATCH_REOPENED, batch=batch.id)
    assert client.redis.llen(worker.queue) >= 1
    assert not other.progress().closed
    other.cancel()
    assert batch.wait(timeout=100).generated == 3
    assert recorded_segments(settings, batch.id) == [0, 1, 2]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("submitting", Event.STALLED_BATCH_REOPENED),
        ("running", Event.STALLED_BATCH_CLOSED),
    ],
)
def test_a_batch_that_nobody_opens_or_closes_is_set_going(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, state: str, event: Event
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [3]))
    result = batch.wait(timeout=100)
    # As if the message that opens the batch, or that of the chord's body, had been lost.
    client.redis.delete(RedisKeys(settings.fleet).result(batch.id))
    client.redis.hset(RedisKeys(settings.fleet).batch(batch.id), "state", state)
    eventually(lambda: batch.progress().closed)
    assert batch.result().results == result.results
    assert recorded_segments(settings, batch.id) == [0, 1, 2]
    assert fleet.wait_for(event, batch=batch.id)
