"""The log lines of workers about a batch, and how often they come."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from redis import Redis

from cloner.client.assignment import Strategy
from cloner.events import Event
from cloner.state.keys import RedisKeys
from cloner.state.registry import Assigned
from cloner.worker.chunk_run import run_chunk
from tests.support.batches import write_batch
from tests.support.log_lines import fields_of, find_lines
from tests.support.workers import BATCH_ID, Workers


def test_each_chunk_of_the_shared_queue_is_an_assignment(
    redis: Redis, valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = Workers(redis, valkey_url, tmp_path / "out", count=2, slots=2)
    chunks = workers.submit(write_batch(tmp_path, [18, 3]), Strategy.SHARED)
    first, second = workers.start(0), workers.start(1)
    logged = []
    for worker, chunk in [(first, chunks[0]), (second, chunks[1])]:
        run_chunk(worker, chunk)
        logged.append(capsys.readouterr().err.splitlines())
    assert logged == [
        [
            "Assigned 1 speakers, 11 texts total",
            "Processing Speaker 0 (1/1)",
            "This speaker has 11 texts",
            *(f"Speaker 0 progress: {count}/11" for count in (1, 5, 10)),
            "✅ Completed Speaker 0: 11 segments",
            "✅ All done! Processed 11/11 segments",
        ],
        [
            "Assigned 2 speakers, 10 texts total",
            "Processing Speaker 0 (1/2)",
            "This speaker has 7 texts",
            *(f"Speaker 0 progress: {count}/7" for count in (1, 5)),
            "Processing Speaker 1 (2/2)",
            "This speaker has 3 texts",
            "✅ Completed Speaker 0: 7 segments",
            "Speaker 1 progress: 1/3",
            "✅ Completed Speaker 1: 3 segments",
            "✅ All done! Processed 10/10 segments",
        ],
    ]


def test_workers_that_share_a_speaker_log_their_own_parts(
    redis: Redis, valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = Workers(redis, valkey_url, tmp_path / "out", count=4, slots=2)
    chunks = workers.submit(write_batch(tmp_path, [64]), Strategy.SHARED)
    together = threading.Barrier(4)

    def run(number: int) -> None:
        together.wait()
        run_chunk(workers.start(number), chunks[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logged = capsys.readouterr().err.splitlines()
    progress = find_lines(logged, Event.SPEAKER_PROGRESS, texts=16)
    counts = [int(fields_of(line, Event.SPEAKER_PROGRESS)["finished"]) for line in progress]
    assert sorted(counts) == sorted([1, 5, 10, 15] * 4)
    assert find_lines(logged, Event.SPEAKER_COMPLETED) == ["✅ Completed Speaker 0: 16 segments"] * 4
    assert find_lines(logged, Event.WORKER_DONE) == ["✅ All done! Processed 16/16 segments"] * 4


def test_a_cancelled_assignment_is_logged_once_for_all_its_chunks(
    redis: Redis, valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = Workers(redis, valkey_url, tmp_path / "out")
    worker = workers.start()
    chunks = workers.submit(write_batch(tmp_path, [2, 2]))
    redis.hset(RedisKeys(workers.settings.fleet).batch(BATCH_ID), "cancelled", "1")
    worker.registry.register(workers.infos[0])
    worker.registry.assign({worker.name: Assigned(f"{BATCH_ID}/0", 2, 4)})
    for chunk in chunks:
        run_chunk(worker, chunk)
    assert capsys.readouterr().err.splitlines() == ["Assigned 2 speakers, 4 texts total"]
    assert redis.hget(RedisKeys(workers.settings.fleet).worker(worker.name), "assignment") == ""


def test_a_speaker_without_any_segment_is_not_logged_to_be_completed(
    redis: Redis, valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = Workers(redis, valkey_url, tmp_path / "out", slots=2)
    (chunk,) = workers.submit(write_batch(tmp_path, [3, 1]))
    redis.delete(RedisKeys(workers.settings.fleet).reference(chunk.slices[0].reference.digest))
    run_chunk(workers.start(), chunk)
    logged = [line for line in capsys.readouterr().err.splitlines() if "✅" in line or "❌ Speaker" in line]
    assert logged == [
        "❌ Speaker 0: no segment generated, 3 failed",
        "✅ Completed Speaker 1: 1 segments",
        "✅ All done! Processed 1/4 segments",
    ]
