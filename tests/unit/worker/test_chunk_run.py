"""One run of a chunk: what it leaves in Redis, in the record and in the log, whatever the engine does."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path

import pytest
from redis import Redis

from cloner.engine.base import NULL_OBSERVER, ChunkObserver, SpeechRequest, SpeechResult
from cloner.engine.fake import FakeEngine
from cloner.errors import EngineBroken, WorkerBroken
from cloner.output.audio_files import codes_part
from cloner.protocol.messages import ChunkMessage
from cloner.state.batches import ChunkProgress
from cloner.state.keys import RedisKeys
from cloner.worker.chunk_run import run_chunk
from cloner.worker.crash_plan import DEATHS, LONE_CRASHES
from cloner.worker.crash_recovery import PassedOn
from cloner.worker.runtime import Runtime
from tests.support.batches import write_batch
from tests.support.workers import BATCH_ID, Workers


@pytest.fixture
def workers(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    return Workers(redis, valkey_url, tmp_path / "out")


def state(workers: Workers) -> object:
    return workers.redis.hget(RedisKeys(workers.settings.fleet).worker(workers.infos[0].name), "state")


def progress(workers: Workers) -> ChunkProgress:
    return ChunkProgress.unpack(
        str(workers.redis.hget(RedisKeys(workers.settings.fleet).progress(BATCH_ID), "0")).encode()
    )


def test_a_worker_is_busy_while_it_speaks_and_then_ready(workers: Workers, tmp_path: Path) -> None:
    class Watching(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            assert state(workers) == "busy"
            yield from super().speak(requests, observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    tally = run_chunk(workers.runtime(engine=Watching()), chunk)
    assert (tally.generated, tally.failed) == (3, 0)
    assert state(workers) == "ready"
    assert (progress(workers).generated, progress(workers).failed) == (3, 0)
    assert progress(workers).finished


def test_a_segment_that_was_cut_is_marked_and_warned_of_once(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2], generation={"max_new_tokens": 12}))
    for _ in range(2):  # delivered again, it finds everything spoken
        run_chunk(workers.runtime(), chunk)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "cut" in line]
    assert warnings == [
        f"⚠ Segment {segment} of Speaker 0 was cut after 12 frames, the end of its text may be missing: "
        "split the text, or raise max_new_tokens"
        for segment in range(2)
    ]
    record = workers.runtime().record(BATCH_ID)
    assert [(result.generated, result.truncated) for result in record.results.values()] == [(True, True)] * 2


class Broken(FakeEngine):
    """Breaks at a text with "broken" in it, as where the GPU's context is dead; not in words that anybody knows."""

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult, None, None]:
        for request in requests:
            observer.started(request.segment)
            if "broken" in request.text:
                raise FileNotFoundError("kernels.bin")
            yield from super().speak([request])


def test_an_engine_that_breaks_leaves_its_segment_under_suspicion_and_the_rest_to_a_fresh_one(
    workers: Workers, tmp_path: Path
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [4], texts={1: "This is broken."}))
    for generated in (1, 1, 3, 3):
        # At first it stops at the second; then that is tried alone; then, once more, last; then the third time.
        with pytest.raises(EngineBroken, match=r"the engine broke: FileNotFoundError: kernels\.bin"):
            run_chunk(workers.runtime(engine=Broken()), chunk)
        assert (progress(workers).generated, progress(workers).finished) == (generated, False)
    tally = run_chunk(workers.runtime(engine=Broken()), chunk)
    assert (tally.generated, tally.failed) == (3, 1)
    results = workers.runtime().record(BATCH_ID).results
    assert {segment: result.code for segment, result in results.items()} == {0: "", 1: "crashed", 2: "", 3: ""}
    assert list(workers.settings.out_dir.rglob("*.hand")) == []


def test_what_a_dead_run_had_not_finished_writing_is_removed(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2], texts={1: "This is broken."}))
    dead = workers.runtime(engine=Broken())
    with pytest.raises(EngineBroken):
        run_chunk(dead, chunk)
    left = [dead.outputs.root / ".cloner" / name for name in (dead.outputs.part, codes_part(dead.outputs.part))]
    for path in left:
        path.write_bytes(b"half")
    run_chunk(workers.runtime(), chunk)
    assert [path for path in left if path.exists()] == []


def test_an_engine_that_always_breaks_is_given_up_in_the_end(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [6], texts=dict.fromkeys(range(6), "All is broken.")))
    for _ in range(DEATHS):
        with pytest.raises(EngineBroken):
            run_chunk(workers.runtime(engine=Broken()), chunk)
    tally = run_chunk(workers.runtime(engine=Broken()), chunk)
    assert (tally.generated, tally.failed) == (0, 6)
    assert f"Chunk 0 of batch {BATCH_ID} is given up: the worker's process died 10 times" in capsys.readouterr().err
    results = workers.runtime().record(BATCH_ID).results
    assert [result.code for result in results.values()] == ["engine_failed"] * 6
    assert progress(workers).finished


def break_down(runtime: Runtime, chunk: ChunkMessage) -> Exception:
    """Run the chunk until its worker has had enough."""
    for _ in range(DEATHS):
        with pytest.raises(EngineBroken):
            run_chunk(runtime, chunk)
    with pytest.raises((PassedOn, WorkerBroken)) as raised:
        run_chunk(runtime, chunk)
    return raised.value


@pytest.fixture
def two(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    """Two workers of a fleet, both alive."""
    workers = Workers(redis, valkey_url, tmp_path / "out", count=2)
    for info in workers.infos:
        workers.runtime().registry.register(info)
    return workers


def broken_chunks(two: Workers, folder: Path) -> list[ChunkMessage]:
    """Three of them: two of six segments, and between those, for the other worker, one of a segment."""
    path = write_batch(folder, [6, 1, 6], texts=dict.fromkeys(range(13), "All is broken."))
    return sorted(two.submit(path), key=lambda chunk: chunk.slices[0].id)


def test_a_worker_passes_chunks_on_and_is_broken_when_another_could_speak_them(two: Workers, tmp_path: Path) -> None:
    broken, sound = two.runtime(engine=Broken()), two.runtime(1)
    first, _, second = broken_chunks(two, tmp_path)
    passed = break_down(broken, first)
    assert isinstance(passed, PassedOn)
    assert passed.queue == two.infos[1].queue
    with pytest.raises(PassedOn):  # it died before it had done so
        run_chunk(broken, first)
    # Nobody knows yet whose fault it is.
    assert isinstance(break_down(broken, second), PassedOn)
    assert run_chunk(sound, first).generated == 6
    with pytest.raises(WorkerBroken, match="could speak nothing of two chunks in a row, and another worker could"):
        run_chunk(broken, second)
    assert run_chunk(sound, second).generated == 6


def test_chunks_that_no_worker_can_speak_cost_the_fleet_none(two: Workers, tmp_path: Path) -> None:
    first, _, second = broken_chunks(two, tmp_path)
    for chunk in (first, second):
        assert isinstance(break_down(two.runtime(engine=Broken()), chunk), PassedOn)
        for _ in range(LONE_CRASHES):
            with pytest.raises(EngineBroken):
                run_chunk(two.runtime(1, engine=Broken()), chunk)
        assert run_chunk(two.runtime(1, engine=Broken()), chunk).failed == 6


def test_one_death_on_another_worker_fails_nothing(two: Workers, tmp_path: Path) -> None:
    first, *_ = broken_chunks(two, tmp_path)
    break_down(two.runtime(engine=Broken()), first)
    with pytest.raises(EngineBroken):
        run_chunk(two.runtime(1, engine=Broken()), first)
    assert run_chunk(two.runtime(1), first).generated == 6


def test_a_worker_that_speaks_again_is_not_broken(two: Workers, tmp_path: Path) -> None:
    first, fine, second = broken_chunks(two, tmp_path)
    broken = two.runtime(engine=Broken())
    assert isinstance(break_down(broken, first), PassedOn)
    assert run_chunk(two.runtime(1), first).generated == 6
    assert run_chunk(two.runtime(), fine).generated == 1
    assert isinstance(break_down(broken, second), PassedOn)


def test_a_segment_without_an_answer_is_not_lost(workers: Workers, tmp_path: Path) -> None:
    class Forgetful(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield from super().speak(list(requests)[:2], observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    with pytest.raises(EngineBroken, match="it gave 1 segments no answer"):
        run_chunk(workers.runtime(engine=Forgetful()), chunk)
    assert run_chunk(workers.runtime(), chunk).generated == 3


def test_what_failed_is_finished_too_when_the_chunk_comes_again(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    for part in chunk.slices:
        workers.redis.delete(RedisKeys(workers.settings.fleet).reference(part.reference.digest))
    assert run_chunk(workers.runtime(), chunk).failed == 3
    assert run_chunk(workers.runtime(), chunk).failed == 3
    (file,) = workers.settings.out_dir.rglob("*.jsonl")
    assert len(file.read_text().splitlines()) == 3


def test_a_file_that_another_batch_put_there_is_spoken_anew(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    run_chunk(workers.runtime(), chunk)
    path = workers.settings.out_dir / chunk.slices[0].segments[0][2]
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + b"xx")
    assert run_chunk(workers.runtime(), chunk).generated == 2
    assert path.read_bytes() == whole


def test_a_batch_that_is_cancelled_stops_in_the_middle_of_a_segment(workers: Workers, tmp_path: Path) -> None:
    class Cancelling(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield from super().speak(islice(requests, 1), observer)
            workers.redis.hset(RedisKeys(workers.settings.fleet).batch(BATCH_ID), "cancelled", "1")
            self._segment_s = 1e6
            yield from super().speak(requests, observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    tally = run_chunk(workers.runtime(engine=Cancelling()), chunk)
    assert (tally.generated, tally.failed) == (1, 0)
    assert list(workers.settings.out_dir.rglob("*.hand")) == []


def test_a_record_that_cannot_be_written_ends_the_chunk_with_a_sentence(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".cloner").write_text("a file where the record's folder should be")
    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    tally = run_chunk(workers.runtime(), chunk)
    assert (tally.generated, tally.failed) == (0, 0)
    assert f"the record in {tmp_path}/out/.cloner/{BATCH_ID} cannot be kept: " in capsys.readouterr().err
    assert progress(workers).finished


def test_a_chunk_that_is_cut_short_is_not_finished(workers: Workers, tmp_path: Path) -> None:
    class Stopped(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield next(super().speak(requests, observer))
            raise SystemExit

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    with pytest.raises(SystemExit):
        run_chunk(workers.runtime(engine=Stopped()), chunk)
    assert (progress(workers).generated, progress(workers).finished) == (1, False)
    assert run_chunk(workers.runtime(), chunk).generated == 3
    assert (progress(workers).generated, progress(workers).finished) == (3, True)
