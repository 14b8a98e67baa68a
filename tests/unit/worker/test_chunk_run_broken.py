"""Runs of chunks whose engine breaks: suspects, other workers, and chunks that are given up."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest
from redis import Redis

from cloner.engine.base import NULL_OBSERVER, ChunkObserver, SpeechRequest, SpeechResult
from cloner.engine.fake import FakeEngine
from cloner.errors import EngineBroken, WorkerBroken
from cloner.events import Event
from cloner.output.audio_files import codes_part
from cloner.protocol.messages import ChunkMessage
from cloner.worker.chunk_run import run_chunk
from cloner.worker.crash_plan import MAX_FRUITLESS_CRASHES, MAX_LONE_CRASHES
from cloner.worker.crash_recovery import PassedOn
from cloner.worker.worker_process import WorkerProcess
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.workers import BATCH_ID, Workers
from tests.unit.worker.test_chunk_run import progress


class Broken(FakeEngine):
    """Breaks at a text with "broken" in it, as where the GPU's context is lost; not in words that the worker knows."""

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult, None, None]:
        for request in requests:
            observer.started(request.segment)
            if "broken" in request.text:
                raise FileNotFoundError("kernels.bin")
            yield from super().speak([request])


def test_after_the_engine_broke_a_fresh_process_generates_the_others_and_the_suspect_fails_in_the_end(
    workers: Workers, tmp_path: Path
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [4], texts={1: "This is broken."}))
    for generated in (1, 1, 3, 3):
        # At first it stops at the second; then that is tried alone; then, once more, last; then the third time.
        with pytest.raises(EngineBroken, match=r"the engine broke: FileNotFoundError: kernels\.bin"):
            run_chunk(workers.start(engine=Broken()), chunk)
        assert (progress(workers).generated, progress(workers).finished) == (generated, False)
    counts = run_chunk(workers.start(engine=Broken()), chunk)
    assert (counts.generated, counts.failed) == (3, 1)
    results = workers.start().record(BATCH_ID).results
    assert {segment: result.code for segment, result in results.items()} == {0: "", 1: "crashed", 2: "", 3: ""}
    assert list(workers.settings.out_dir.rglob("*.journal")) == []


def test_the_temporary_files_of_a_crashed_run_are_removed(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2], texts={1: "This is broken."}))
    first = workers.start(engine=Broken())
    with pytest.raises(EngineBroken):
        run_chunk(first, chunk)
    left = [first.outputs.root / ".cloner" / name for name in (first.outputs.part, codes_part(first.outputs.part))]
    for path in left:
        path.write_bytes(b"half")
    run_chunk(workers.start(), chunk)
    assert [path for path in left if path.exists()] == []


def test_a_chunk_is_given_up_if_the_engine_always_breaks(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [6], texts=dict.fromkeys(range(6), "All is broken.")))
    for _ in range(MAX_FRUITLESS_CRASHES):
        with pytest.raises(EngineBroken):
            run_chunk(workers.start(engine=Broken()), chunk)
    counts = run_chunk(workers.start(engine=Broken()), chunk)
    assert (counts.generated, counts.failed) == (0, 6)
    error = re.compile("the worker's process died 10 times")
    assert find_lines(capsys.readouterr().err.splitlines(), Event.CHUNK_GIVEN_UP, chunk=0, batch=BATCH_ID, error=error)
    results = workers.start().record(BATCH_ID).results
    assert [result.code for result in results.values()] == ["engine_failed"] * 6
    assert progress(workers).finished


def break_down(worker: WorkerProcess, chunk: ChunkMessage) -> Exception:
    """Run the chunk until its worker passes it on or gives up; returns the error."""
    for _ in range(MAX_FRUITLESS_CRASHES):
        with pytest.raises(EngineBroken):
            run_chunk(worker, chunk)
    with pytest.raises((PassedOn, WorkerBroken)) as raised:
        run_chunk(worker, chunk)
    return raised.value


@pytest.fixture
def two(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    """Two workers of a fleet, both alive."""
    workers = Workers(redis, valkey_url, tmp_path / "out", count=2)
    for info in workers.infos:
        workers.start().registry.register(info)
    return workers


def broken_chunks(two: Workers, folder: Path) -> list[ChunkMessage]:
    """Three of them: two of six segments, and between those, for the other worker, one of a segment."""
    path = write_batch(folder, [6, 1, 6], texts=dict.fromkeys(range(13), "All is broken."))
    return sorted(two.submit(path), key=lambda chunk: chunk.slices[0].id)


def test_a_worker_passes_chunks_on_and_is_broken_if_another_could_generate_them(two: Workers, tmp_path: Path) -> None:
    broken, sound = two.start(engine=Broken()), two.start(1)
    first, _, second = broken_chunks(two, tmp_path)
    passed = break_down(broken, first)
    assert isinstance(passed, PassedOn)
    assert passed.queue == two.infos[1].queue
    with pytest.raises(PassedOn):  # its process crashed before it had passed the chunk on
        run_chunk(broken, first)
    # It is not known yet which of chunk and worker is at fault.
    assert isinstance(break_down(broken, second), PassedOn)
    assert run_chunk(sound, first).generated == 6
    with pytest.raises(WorkerBroken, match="could speak nothing of two chunks in a row, and another worker could"):
        run_chunk(broken, second)
    assert run_chunk(sound, second).generated == 6


def test_chunks_that_no_worker_can_generate_break_no_worker(two: Workers, tmp_path: Path) -> None:
    first, _, second = broken_chunks(two, tmp_path)
    for chunk in (first, second):
        assert isinstance(break_down(two.start(engine=Broken()), chunk), PassedOn)
        for _ in range(MAX_LONE_CRASHES):
            with pytest.raises(EngineBroken):
                run_chunk(two.start(1, engine=Broken()), chunk)
        assert run_chunk(two.start(1, engine=Broken()), chunk).failed == 6


def test_one_crash_on_another_worker_fails_nothing(two: Workers, tmp_path: Path) -> None:
    first, *_ = broken_chunks(two, tmp_path)
    break_down(two.start(engine=Broken()), first)
    with pytest.raises(EngineBroken):
        run_chunk(two.start(1, engine=Broken()), first)
    assert run_chunk(two.start(1), first).generated == 6


def test_a_worker_that_generates_again_is_not_broken(two: Workers, tmp_path: Path) -> None:
    first, fine, second = broken_chunks(two, tmp_path)
    broken = two.start(engine=Broken())
    assert isinstance(break_down(broken, first), PassedOn)
    assert run_chunk(two.start(1), first).generated == 6
    assert run_chunk(two.start(), fine).generated == 1
    assert isinstance(break_down(broken, second), PassedOn)


def test_a_broken_engine_ends_the_process_although_redis_refuses_writes(
    workers: Workers, tmp_path: Path, redis: Redis
) -> None:
    """Else the chunk would run again in the same process, and each try would count as a death of its segments."""

    class BrokenInOutage(Broken):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            redis.config_set("maxmemory", 1)
            yield from super().speak(requests, observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [1], texts={0: "This is broken."}))
    try:
        with pytest.raises(EngineBroken):
            run_chunk(workers.start(engine=BrokenInOutage()), chunk)
    finally:
        redis.config_set("maxmemory", 0)
