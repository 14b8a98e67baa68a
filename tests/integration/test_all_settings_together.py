"""All of the product's Celery settings together, during faults.

What single ones are for: test_messages.py, test_redis_away.py, test_watching.py; their values: unit/test_app.py.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
import soundfile

from cloner import Client
from cloner.client.assignment import Strategy
from cloner.events import Event
from cloner.output.record import Record
from cloner.queueing.app import make_app
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.log_lines import fields_of
from tests.support.polling import eventually
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

SEGMENT_S = 0.05


def test_a_batch_survives_its_worker_child_being_killed(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    # Celery's default kills a replacement child that loads for more than four seconds, again and again.
    fleet = launch("--workers", "2", fake_segment_s=SEGMENT_S, fake_load_s=5.0)
    fleet.wait_for(Event.MODELS_LOADED, 2)

    batch = client.submit(write_batch(tmp_path))
    fleet.wait_for(Event.SPEAKER_PROGRESS, child="Worker 0", speaker=0, finished=5, texts=8)
    # The prefork pool answers while its child works; the solo pool would not.
    names = {worker.name for worker in client.fleet()}
    pongs = make_app(settings).control.ping(timeout=5.0, destination=sorted(names))
    assert {name for pong in pongs for name in pong} == names
    _kill_child(next(worker.pid for worker in client.fleet() if worker.index == 0))

    result = batch.wait(timeout=60)
    assert (result.generated, result.failed) == (46, 0)
    for index, output in result.results.items():
        assert soundfile.info(settings.out_dir / output).duration >= 0.5, index
    # The chord's body ran on the collector's own queue and left the same JSON beside the record.
    written = json.loads((settings.out_dir / ".cloner" / batch.id / "result.json").read_text())
    assert written == json.loads(result.to_json())

    # What the child had finished when it died was not generated again.
    assert recorded_segments(settings, batch.id) == list(range(46))
    # One load for each worker, and one more for the replaced child.
    assert {worker.index: worker.loads for worker in client.fleet()} == {0: 2, 1: 1}
    record = Record(settings.out_dir, batch.id)
    record.refresh()
    assert (record.finished(0), record.finished(1)) == (24, 22)


def test_the_log_counts_a_speaker_over_its_chunks_and_over_a_crash(
    launch: Launch, client: Client, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_slots=2, fake_segment_s=SEGMENT_S)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [40, 3]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=20, texts=40)
    # In the middle of the speaker's second chunk of three, which then comes back behind the third.
    _kill_child(client.fleet()[0].pid)
    assert batch.wait(timeout=60).generated == 43
    assert fleet.find(Event.SPEAKER_STARTED) == [
        "[Worker 0] Processing Speaker 0 (1/2)",
        "[Worker 0] Processing Speaker 1 (2/2)",
    ]
    assert fleet.find(Event.SPEAKER_PROGRESS, speaker=0) == [
        f"[Worker 0] Speaker 0 progress: {count}/40" for count in (1, *range(5, 41, 5))
    ]
    assert fleet.find(Event.SPEAKER_COMPLETED, speaker=0) == ["[Worker 0] ✅ Completed Speaker 0: 40 segments"]
    assert fleet.find(Event.WORKER_DONE) == ["[Worker 0] ✅ All done! Processed 43/43 segments"]


def test_a_worker_drains_its_own_queue_before_the_shared_one(launch: Launch, client: Client, tmp_path: Path) -> None:
    fleet = launch("--workers", "1", fake_segment_s=SEGMENT_S)
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    first = client.submit(write_batch(tmp_path / "a", [3, 3]), strategy=Strategy.SHARED)
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=3)
    # The worker finishes nothing until everything is queued.
    psutil.Process(worker.pid).suspend()
    own = client.submit(write_batch(tmp_path / "b", [4, 5], outputs="own"))
    eventually(lambda: client.redis.llen(worker.queue) == 2)
    psutil.Process(worker.pid).resume()
    assert own.wait(timeout=60).generated == 9
    assert first.wait(timeout=60).generated == 6
    # The shared queue's second chunk was queued first, and came after both chunks of the worker's own queue.
    texts = [fields_of(line, Event.SPEAKER_TEXTS)["texts"] for line in fleet.wait_for(Event.SPEAKER_TEXTS, 4)]
    assert texts == ["3", "4", "5", "3"]


def _kill_child(child: int) -> None:
    """Kill -9 the process that holds the model, not Celery's parent."""
    assert psutil.Process(child).parent() is not None
    os.kill(child, signal.SIGKILL)
