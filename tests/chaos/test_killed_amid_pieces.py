"""A worker is killed while it generates the pieces of a long text."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from cloner import Client
from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.batch import Generation
from cloner.output.record import Record
from cloner.settings import Settings
from cloner.text.splitting import split
from tests.support.batches import write_batch
from tests.support.crashes import check_whole, journal_lines, loads
from tests.support.polling import eventually
from tests.support.process_tree import celery_child, celery_parents
from tests.support.processes import LaunchLoaded

pytestmark = pytest.mark.slow

LONG = "This sentence is one of many in a long text. " * 100
GENERATION = Generation()


def test_the_pieces_are_generated_anew_and_joined(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch_loaded(fake_segment_s=0.2, fake_slots=2)
    batch = client.submit(write_batch(tmp_path, [3], texts={1: LONG}))
    pieces = len(split(LONG, GENERATION))
    # Each piece that is begun has a line in the journal, under its segment's index.
    eventually(lambda: sum('"segment":1' in line for line in journal_lines(settings)) in range(4, pieces - 2))
    (worker,) = celery_parents(fleet, "cloner.worker")
    celery_child(worker).kill()
    result = batch.wait(timeout=100)
    check_whole(result, settings)
    assert loads(client) == 2
    record = Record(settings.out_dir, batch.id)
    record.refresh()
    pauses = round(GENERATION.pause_s * SAMPLE_RATE) * (pieces - 1)
    assert (
        soundfile.info(settings.out_dir / result.results[1]).frames == record.results[1].frames * FRAME_SAMPLES + pauses
    )
