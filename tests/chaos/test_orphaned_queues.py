"""Queues without a worker: after a restart with fewer workers, with another GPU, or when a box is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

CARDS = ("--gpu", "Old card:24", "--gpu", "Old card:24", "--workers", "2")


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (("--workers", "2"), ("--workers", "1"), {}),
        (CARDS, ("--workers", "1"), {}),
        (("--workers", "2"), ("--workers", "1"), {"box": "another"}),
    ],
    ids=["fewer workers", "another card", "another box"],
)
def test_the_batch_completes_where_its_queues_have_lost_their_workers(
    launch: Launch,
    client: Client,
    settings: Settings,
    tmp_path: Path,
    before: tuple[str, ...],
    after: tuple[str, ...],
    changes: dict[str, str],
) -> None:
    fleet = launch(*before, fake_segment_s=0.2, heartbeat_s=0.2, alive_s=6.0)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path, [12] * 4))
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=5, texts=12)
    fleet.process.kill()
    fleet.wait()

    second = launch(*after, heartbeat_s=0.2, alive_s=6.0, **changes)
    second.wait_for(Event.MESSAGES_TAKEN_OVER, queue="the shared queue")
    assert batch.wait(timeout=100).generated == 48
    assert recorded_segments(settings, batch.id) == list(range(48))
