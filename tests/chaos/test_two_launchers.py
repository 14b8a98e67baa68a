"""Two launchers of one box, by mistake or because one of them was frozen."""

from __future__ import annotations

import signal
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


def test_the_second_one_is_refused_and_the_first_goes_on(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    first = launch("--workers", "1", fake_segment_s=0.2)
    first.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [20]))
    first.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=20)
    second = launch("--workers", "2")
    assert second.wait() == 2
    assert second.lines[-1].startswith('another launcher runs the workers of box "box" (process ')
    assert "CLONER_BOX" in second.lines[-1]
    assert second.find(Event.LAUNCHING_WORKERS) == second.find(Event.LAUNCHING_WORKER) == []
    assert batch.wait(timeout=100).generated == 20
    assert recorded_segments(settings, batch.id) == list(range(20))
    assert [worker.loads for worker in client.fleet()] == [1]


def test_one_that_was_frozen_finds_its_box_taken_and_stops(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    first = launch("--workers", "1", fake_segment_s=0.3)
    first.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [30, 30]))
    first.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=30)
    first.process.send_signal(signal.SIGSTOP)
    eventually(lambda: not client.redis.exists(RedisKeys(settings.fleet).box_lease(settings.box)))
    second = launch("--workers", "1")
    second.wait_for(Event.LAUNCHING_WORKER, index=0)
    first.process.send_signal(signal.SIGCONT)
    assert first.wait() == 2
    assert first.lines[-1].startswith('another launcher has taken over box "box"')
    result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (60, 0)
    assert second.stop() == 0
