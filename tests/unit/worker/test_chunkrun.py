"""One run of a chunk: what it leaves in Redis, in the record and in the log, whatever the engine does."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest
from redis import Redis

from cloner.engine.base import UNWATCHED, Line, NotSpoken, Spoken, Watch
from cloner.engine.fake import FakeEngine
from cloner.worker.chunkrun import ChunkRun
from tests.batches import write_batch
from tests.unit.worker.workers import BATCH_ID, Workers


@pytest.fixture
def workers(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    return Workers(redis, valkey_url, tmp_path / "out")


def state(workers: Workers) -> object:
    return workers.redis.hget(workers.settings.names.worker(workers.infos[0].name), "state")


def progress(workers: Workers) -> list[object]:
    found: list[object] = json.loads(str(workers.redis.hget(workers.settings.names.progress(BATCH_ID), "0")))
    return found


def test_a_worker_is_busy_while_it_speaks_and_then_ready(workers: Workers, tmp_path: Path) -> None:
    class Watching(FakeEngine):
        def speak(self, lines: Iterable[Line], watch: Watch = UNWATCHED) -> Generator[Spoken | NotSpoken, None, None]:
            assert state(workers) == "busy"
            yield from super().speak(lines, watch)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    tally = ChunkRun(workers.runtime(engine=Watching()), chunk).run()
    assert (tally.generated, tally.failed) == (3, 0)
    assert state(workers) == "ready"
    assert progress(workers)[:2] == [3, 0]
    assert progress(workers)[4] is True


def test_a_segment_that_was_cut_is_marked_and_warned_of_once(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2], generation={"max_new_tokens": 12}))
    for _ in range(2):  # delivered again, it finds everything spoken
        ChunkRun(workers.runtime(), chunk).run()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "cut" in line]
    assert warnings == [
        f"⚠ Segment {segment} of Speaker 0 was cut after 12 frames, the end of its text may be missing: "
        "split the text, or raise max_new_tokens"
        for segment in range(2)
    ]
    record = workers.runtime().record(BATCH_ID)
    assert [(result.generated, result.truncated) for result in record.results.values()] == [(True, True)] * 2


def test_an_engine_that_cannot_read_a_file_fails_its_segments(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class WithoutFile(FakeEngine):
        def speak(self, lines: Iterable[Line], watch: Watch = UNWATCHED) -> Generator[Spoken | NotSpoken, None, None]:  # noqa: ARG002
            next(iter(lines))
            raise FileNotFoundError("kernels.bin")

    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    tally = ChunkRun(workers.runtime(engine=WithoutFile()), chunk).run()
    assert (tally.generated, tally.failed) == (0, 2)
    assert "the engine broke: FileNotFoundError: kernels.bin" in capsys.readouterr().err
    results = workers.runtime().record(BATCH_ID).results
    assert [result.code for result in results.values()] == ["engine_failed"] * 2


def test_a_record_that_cannot_be_written_ends_the_chunk_with_a_sentence(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".cloner").write_text("a file where the record's folder should be")
    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    tally = ChunkRun(workers.runtime(), chunk).run()
    assert (tally.generated, tally.failed) == (0, 0)
    assert f"the record in {tmp_path}/out/.cloner/{BATCH_ID} cannot be kept: " in capsys.readouterr().err
    assert progress(workers)[4] is True


def test_a_chunk_that_is_cut_short_is_not_finished(workers: Workers, tmp_path: Path) -> None:
    class Stopped(FakeEngine):
        def speak(self, lines: Iterable[Line], watch: Watch = UNWATCHED) -> Generator[Spoken | NotSpoken, None, None]:
            yield next(super().speak(lines, watch))
            raise SystemExit

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    with pytest.raises(SystemExit):
        ChunkRun(workers.runtime(engine=Stopped()), chunk).run()
    assert (progress(workers)[0], progress(workers)[4]) == (1, False)
    assert ChunkRun(workers.runtime(), chunk).run().generated == 3
    assert (progress(workers)[0], progress(workers)[4]) == (3, True)
