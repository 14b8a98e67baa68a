"""A batch is cancelled while it is generated: it stops, finished segments stay, and the worker goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_running_segments_stop_and_the_worker_takes_the_next_batch(
    engine: str, launch: Launch, client: Client, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A segment would take longer than the test's limit."""
    changes: dict[str, object] = {"fake_slots": 2, "fake_segment_s": 3600}
    generation = {}
    if engine == "batched":
        changes = {"engine": EngineName.BATCHED, "slots": 4, "checkpoint_dir": tiny_checkpoint}
        generation = {"min_new_tokens": 3500, "max_new_tokens": 3500}
    fleet = launch("--workers", "1", **changes)
    fleet.wait_for(Event.MODELS_LOADED)
    assert (client.fleet()[0].cache_gb > 0) == (engine == "batched")
    for number in (1, 2):
        batch = client.submit(write_batch(tmp_path, [32], generation, outputs=f"audio{number}"))
        eventually(lambda: any('"segment"' in path.read_text() for path in settings.out_dir.rglob("*.journal")))
        batch.cancel()
        began = time.monotonic()
        result = batch.wait(timeout=100)
        print(f"{engine}: closed {time.monotonic() - began:.1f} s after it was cancelled")
        assert result.cancelled
        assert result.generated == len(recorded_segments(settings, batch.id)) < 32
        assert {error.code for error in result.errors.values()} == {"cancelled"}
        assert [path.name for path in settings.out_dir.rglob("*.journal")] == []
    assert [worker.loads for worker in client.fleet()] == [1]


def test_what_was_finished_stays_and_is_not_spoken_again(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        import time
        speak = module.FakeEngine.speak
        def speaking(self, requests, observer=module.NULL_OBSERVER):
            for request in requests:
                if "endless" in request.text and once("endless"):
                    while not observer.stopped():
                        time.sleep(0.01)
                    return
                yield from speak(self, [request], observer)
        module.FakeEngine.speak = speaking
        """,
    )
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    path = write_batch(tmp_path, [6], texts={4: "An endless text."})
    batch = client.submit(path)
    eventually(lambda: recorded_segments(settings, batch.id) == [0, 1, 2, 3])
    batch.cancel()
    assert sorted(batch.wait(timeout=100).results) == [0, 1, 2, 3]
    before = {path: path.stat().st_mtime_ns for path in (settings.out_dir / "batch/audio").iterdir()}
    again = client.submit(path).wait(timeout=100)
    assert (again.generated, again.reused) == (6, 4)
    assert all(path.stat().st_mtime_ns == before[path] for path in before)


@pytest.mark.parametrize("again", [False, True])
def test_a_batch_that_is_cancelled_while_no_worker_is_there_is_not_spoken_later(
    again: bool, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.5)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [20]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=20)
    fleet.stop()
    there = recorded_segments(settings, batch.id)
    batch.cancel()
    if again:  # not only once: Celery itself forgets what was revoked when a worker starts anew
        restarted = launch("--workers", "1")
        restarted.wait_for(Event.MODELS_LOADED)
        restarted.stop()
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    result = batch.wait(timeout=60)
    assert result.cancelled
    assert recorded_segments(settings, batch.id) == there == sorted(result.results)
