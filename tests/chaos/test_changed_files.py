"""Another program writes over audio files of a batch that is in progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.processes import Launch

pytestmark = pytest.mark.slow


def test_files_that_were_removed_are_generated_again_and_what_was_written_over_them_stays(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.1)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [20]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=20)
    first, second = (settings.out_dir / f"batch/audio/{index}.wav" for index in (0, 1))
    whole = first.read_bytes(), second.read_bytes()
    first.write_bytes(bytes(len(whole[0])))
    second.unlink()
    result = batch.wait(timeout=100)
    assert (result.generated, result.failed) == (19, 1)
    assert result.errors[0].code == "changed"
    assert fleet.find(Event.ROUND_BEGUN, batch=batch.id, missing=2, chunks=1)
    assert (first.read_bytes(), second.read_bytes()) == (bytes(len(whole[0])), whole[1])
    record = Record(settings.out_dir, batch.id)
    record.refresh()
    outputs = OutputRoot(settings.out_dir)
    assert [line.segment for line in record.results.values() if not outputs.has_result(line)] == [0]


def test_files_of_a_cancelled_batch_that_were_written_over_are_errors_of_its_result(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.5)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [100]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=100)
    (settings.out_dir / "batch/audio/0.wav").write_text("of another program")
    batch.cancel()
    result = batch.wait(timeout=100)
    assert 1 in result.results
    assert result.errors[0].code == "changed"
    assert result.errors[0].message.startswith("batch/audio/0.wav was removed or written over after ")
    assert {error.code for index, error in result.errors.items() if index} == {"cancelled"}
