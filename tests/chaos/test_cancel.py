"""A cancelled batch is left at once, in the midst of its segments, and what is finished stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cloner.client import Client
from cloner.settings import EngineName, Settings
from tests.batches import write_batch
from tests.integration.conftest import Start, eventually, spoken


def test_segments_under_way_are_dropped_and_the_worker_takes_the_next_batch(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    # Each takes longer than the test waits for anything.
    fleet = launch("--workers", "1", fake_segment_s=3600)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [4]))
    fleet.wait_for("This speaker has 4 texts")
    batch.cancel()
    result = batch.wait(timeout=60)
    assert (result.generated, result.cancelled) == (0, True)
    assert {error.code for error in result.errors.values()} == {"cancelled"}

    following = client.submit(write_batch(tmp_path, [2]))
    fleet.wait_for("This speaker has 2 texts")
    following.cancel()
    assert following.wait(timeout=60).cancelled
    (worker,) = client.fleet()
    assert worker.loads == 1, "no process had to be ended for it"
    assert spoken(settings, batch.id) == []


def test_long_segments_of_the_batched_engine_are_dropped_and_what_is_finished_stays(
    launch: Start, client: Client, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", engine=EngineName.BATCHED, checkpoint_dir=tiny_checkpoint, slots=2)
    fleet.wait_for("Models loaded!")
    assert client.fleet()[0].cache_gb > 0
    long = {"max_new_tokens": 2000, "min_new_tokens": 2000}
    first = client.submit(write_batch(tmp_path, [40], generation=long))
    eventually(lambda: first.progress().generated >= 2)
    first.cancel()
    begin = time.monotonic()
    result = first.wait(timeout=100)
    assert result.cancelled
    assert 2 <= result.generated < 40
    assert sorted(result.results) == spoken(settings, first.id)
    assert all((settings.out_dir / output).exists() for output in result.results.values())
    print(f"left after {time.monotonic() - begin:.1f} s")

    short = {"max_new_tokens": 5}
    following = client.submit(write_batch(tmp_path, [2], generation=short, outputs="others"))
    assert following.wait(timeout=100).generated == 2


@pytest.mark.parametrize("again", [False, True])
def test_a_batch_that_is_cancelled_while_no_worker_is_there_is_not_spoken_later(
    again: bool, launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.5)
    fleet.wait_for("Models loaded!")
    batch = client.submit(write_batch(tmp_path, [20]))
    fleet.wait_for("Speaker 0 progress: 1/20")
    fleet.stop()
    there = spoken(settings, batch.id)
    batch.cancel()
    if again:  # not only once: Celery itself forgets what was revoked when a worker starts anew
        restarted = launch("--workers", "1")
        restarted.wait_for("Models loaded!")
        restarted.stop()
    launch("--workers", "1").wait_for("Models loaded!")
    result = batch.wait(timeout=60)
    assert result.cancelled
    assert spoken(settings, batch.id) == there == sorted(result.results)
