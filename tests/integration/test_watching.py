"""A fleet from outside: its processes, its Celery events, its keys in Redis, its log."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from cloner.client.client import BatchHandle, Client
from cloner.events import Event
from cloner.queueing.app import make_app
from cloner.settings import LogFormat, Settings
from tests.support.batches import write_batch
from tests.support.polling import TIMEOUT_S
from tests.support.processes import Launch

pytestmark = pytest.mark.slow

KINDS = {"task-sent", "task-received", "task-started", "task-succeeded"}

LINES = """\
[Worker 0] Starting on cpu
[Worker 0] Loading Text2Semantic model...
[Worker 0] Loading DAC model...
[Worker 0] Models loaded! Starting generation...
[Worker 0] Assigned 2 speakers, 7 texts total
[Worker 0] Processing Speaker 0 (1/2)
[Worker 0] This speaker has 2 texts
[Worker 0] Speaker 0 progress: 1/2
[Worker 0] ✅ Completed Speaker 0: 2 segments
[Worker 0] Processing Speaker 1 (2/2)
[Worker 0] This speaker has 5 texts
[Worker 0] Speaker 1 progress: 1/5
[Worker 0] Speaker 1 progress: 5/5
[Worker 0] ✅ Completed Speaker 1: 5 segments
[Worker 0] ✅ All done! Processed 7/7 segments
""".splitlines()


def test_a_worker_and_the_collector_say_nothing_but_what_is_this_version(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)

    # Two parents and their spawned children; REMAP_SIGTERM is set before each imports Celery.
    processes = psutil.Process(fleet.process.pid).children(recursive=True)
    children = [process for process in processes if "billiard.spawn" in " ".join(process.cmdline())]
    (child,) = [child for child in children if child.pid == client.fleet()[0].pid]
    assert [process.environ()["REMAP_SIGTERM"] for process in children] == ["SIGQUIT", "SIGQUIT"]

    batch = client.submit(write_batch(tmp_path, [2, 5]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=1, finished=1, texts=5)
    child.suspend()
    # One chunk is finished, one in flight.
    # The chord's counter and size: neither key may expire before the batch.
    patterns = f"celery-task-meta-{batch.id}.*", f"celery-taskset-meta-{batch.id}*.[jsd]"
    ages = [client.redis.ttl(key) for pattern in patterns for key in client.redis.scan_iter(pattern)]
    assert len(ages) >= 4
    assert min(ages) > settings.batch_ttl_s - 600
    child.resume()

    assert batch.wait(timeout=60).generated == 7
    assert fleet.stop() == 0
    assert [line for line in fleet.lines if line.startswith(("[Worker", "[Collector"))] == LINES
    assert fleet.process.stdout
    assert fleet.process.stdout.read() == ""


def test_who_listens_for_events_sees_a_chunk_sent_started_and_finished(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    app = make_app(settings)
    seen: list[tuple[str, str]] = []
    batch: BatchHandle | None = None
    deadline = time.monotonic() + TIMEOUT_S
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, {"*": lambda e: seen.append((e.get("uuid", ""), e["type"]))})
        # It asks the workers for a heartbeat; once the first has come, it listens.
        for _ in receiver.itercapture(timeout=TIMEOUT_S):
            batch = batch or client.submit(write_batch(tmp_path, [1]))
            # The collector's sent event follows the message, so a worker's event may come first.
            if {kind for uuid, kind in seen if uuid == f"{batch.id}.0"} == KINDS:
                break
            assert time.monotonic() < deadline, seen


def test_a_program_that_reads_the_lines_finds_objects_that_say_whose_they_are(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", log_format=LogFormat.JSON)
    fleet.wait_for(Event.MODELS_LOADED)
    (settings.out_dir / "batch/audio/2.wav").mkdir(parents=True)  # a file cannot take its place
    batch = client.submit(write_batch(tmp_path, [2, 1]))
    assert batch.wait(timeout=60).failed == 1
    fleet.wait_for(Event.WORKER_DONE)
    assert fleet.stop() == 0
    lines = [json.loads(line) for line in fleet.lines]
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    # The launcher's own lines, and the worker's with its fields.
    assert {"[Main] Launching 1 workers..."} <= {line["event"] for line in lines}
    found = {line["event"]: {key: line.get(key) for key in ("worker", "batch", "speaker", "segment")} for line in lines}
    worker = {"worker": f"cpu.0@{settings.box}", "batch": None, "speaker": None, "segment": None}
    assert found["Starting on cpu"] == worker
    assert found["Models loaded! Starting generation..."] == worker
    assert found["Speaker 0 progress: 1/2"] == {**worker, "batch": batch.id, "speaker": "0"}
    (failed,) = [line for line in lines if line.get("id") == "segment_failed"]
    assert failed["event"].startswith("❌ Segment 2 of Speaker 1 failed: ")
    assert (failed["level"], failed["batch"], failed["speaker"], failed["segment"]) == ("warning", batch.id, "1", 2)
