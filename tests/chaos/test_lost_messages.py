"""A message that is gone: taken out of its queue by somebody who died before he had noted that he has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner import Client
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.integration.conftest import Start, eventually, spoken
from tests.support.batches import write_batch


def test_a_batch_whose_chunk_is_lost_is_finished_all_the_same(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.1)
    fleet.wait_for("Models loaded!")
    (worker,) = client.fleet()
    batch = client.submit(write_batch(tmp_path, [20, 3, 3]))
    fleet.wait_for("Speaker 0 progress: 1/20")
    lost = json.loads(str(client.redis.rpop(worker.queue)))["headers"]["id"]
    assert lost == f"{batch.id}.1"
    assert batch.wait(timeout=100).generated == 26
    assert spoken(settings, batch.id) == list(range(26))
    assert fleet.wait_for(f"Batch {batch.id}: nothing of it is under way, so it is opened again")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("submitting", "nothing of it is under way, so it is opened again"),
        ("running", "nobody closes it, so it is closed now"),
    ],
)
def test_a_batch_that_nobody_opens_or_closes_is_set_going(
    launch: Start, client: Client, settings: Settings, tmp_path: Path, state: str, says: str
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [3]))
    result = batch.wait(timeout=100)
    # As if the message that opens it, or that of the chord's body, had been lost.
    client.redis.delete(RedisKeys(settings.fleet).result(batch.id))
    client.redis.hset(RedisKeys(settings.fleet).batch(batch.id), "state", state)
    eventually(lambda: batch.progress().closed)
    assert batch.result().results == result.results
    assert spoken(settings, batch.id) == [0, 1, 2]
    assert fleet.wait_for(f"Batch {batch.id}: {says}")
