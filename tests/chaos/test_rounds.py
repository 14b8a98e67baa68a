"""A chunk ends without a line in the record for each of its segments: it is sent again before its batch is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

RAISES_ONCE = """
run_chunk = module.run_chunk
def run_and_raise(worker, message):
    progress = run_chunk(worker, message)
    if message.number == 1 and once("raised"):
        raise AssertionError
    return progress
def raise_first(worker, message):
    if message.number == 1 and once("raised"):
        raise AssertionError
    return run_chunk(worker, message)
module.run_chunk = {which}
"""

RAISES_ALWAYS = """
run_chunk = module.run_chunk
def raise_always(worker, message):
    if message.number == 1:
        raise AssertionError
    return run_chunk(worker, message)
module.run_chunk = raise_always
"""

DIES_BEFORE_THE_ROUND = """
publish = module.publish_chunks
def publish_or_die(manifest, present, *others, **options):
    if present.number == 1 and once("died"):
        die()
    publish(manifest, present, *others, **options)
module.publish_chunks = publish_or_die
"""


@pytest.mark.parametrize("which", ["raise_first", "run_and_raise"])
def test_segments_of_a_chunk_whose_task_failed_are_generated(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path, which: str
) -> None:
    patch_module("cloner.worker.chunk_run", RAISES_ONCE.format(which=which))
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [3, 3, 3]))
    result = batch.wait(timeout=100)
    assert (result.generated, result.errors) == (9, {})
    assert recorded_segments(settings, batch.id) == list(range(9))
    begun = find_lines(fleet.lines, Event.ROUND_BEGUN, batch=batch.id, missing=3, chunks=1)
    assert len(begun) == (1 if which == "raise_first" else 0)


def test_a_chunk_that_fails_in_every_round_is_missing(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    patch_module("cloner.worker.chunk_run", RAISES_ALWAYS)
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [3, 3, 3]))
    result = batch.wait(timeout=100)
    assert {index: error.code for index, error in result.errors.items()} == dict.fromkeys((3, 4, 5), "missing")
    assert result.generated == 6
    assert len(find_lines(fleet.lines, Event.ROUND_BEGUN, batch=batch.id)) == 3
    # Nothing of any round stays: a round that is published twice leaves Celery's count of it, which expires.
    assert [key for key in client.redis.scan_iter("celery-*") if client.redis.ttl(str(key)) == -1] == []


def test_revoked_chunks_are_generated_in_another_round(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.3)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [4, 2, 3, 1]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=4)
    # The worker stops in its first chunk, and drops the two others when it takes them.
    make_app(settings).control.revoke([f"{batch.id}.1", f"{batch.id}.3"])
    result = batch.wait(timeout=60)
    assert (result.generated, result.errors) == (10, {})
    assert recorded_segments(settings, batch.id) == list(range(10))
    assert fleet.wait_for(Event.ROUND_BEGUN, batch=batch.id, missing=3, chunks=2)


def test_a_collector_that_dies_before_it_sends_a_round_sends_it_later(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    patch_module("cloner.collector.tasks", DIES_BEFORE_THE_ROUND)
    fleet = launch("--workers", "1", fake_segment_s=0.3)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [4, 2]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=4)
    make_app(settings).control.revoke([f"{batch.id}.1"])
    result = batch.wait(timeout=100)
    assert (result.generated, result.errors) == (6, {})
    assert recorded_segments(settings, batch.id) == list(range(6))
    assert client.redis.hget(RedisKeys(settings.fleet).batch(batch.id), "state") == "done"
