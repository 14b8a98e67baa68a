"""One run of a chunk: its results in Redis, in the record and in the log, whatever the engine does."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from cloner.engine.base import NULL_OBSERVER, ChunkObserver, SegmentAudio, SpeechRequest, SpeechResult
from cloner.engine.fake import FakeEngine
from cloner.errors import EngineBroken
from cloner.events import Event
from cloner.protocol.rows import TakeRow
from cloner.state.keys import RedisKeys
from cloner.state.progress import ChunkProgress
from cloner.worker.chunk_run import run_chunk
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.workers import BATCH_ID, Workers


def state(workers: Workers) -> object:
    return workers.redis.hget(RedisKeys(workers.settings.fleet).worker(workers.infos[0].name), "state")


def progress(workers: Workers) -> ChunkProgress:
    return ChunkProgress.unpack(
        str(workers.redis.hget(RedisKeys(workers.settings.fleet).progress(BATCH_ID), "0")).encode()
    )


def test_a_worker_is_busy_during_a_chunk_and_ready_after_it(workers: Workers, tmp_path: Path) -> None:
    class Watching(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            assert state(workers) == "busy"
            yield from super().speak(requests, observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    counts = run_chunk(workers.start(engine=Watching()), chunk)
    assert (counts.generated, counts.failed) == (3, 0)
    assert state(workers) == "ready"
    assert (progress(workers).generated, progress(workers).failed) == (3, 0)
    assert progress(workers).finished


def test_a_segment_that_is_cut_fails_and_is_logged_once(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2], generation={"max_new_tokens": 12}))
    for _ in range(2):  # delivered again, all segments are in the record
        run_chunk(workers.start(), chunk)
    said = "it is cut after 12 frames (0.6 s): raise max_new_tokens, or split the text"
    assert find_lines(capsys.readouterr().err.splitlines(), Event.SEGMENT_FAILED) == [
        Event.SEGMENT_FAILED.line(segment=segment, speaker=0, error=said) for segment in range(2)
    ]
    record = workers.start().record(BATCH_ID)
    assert [(result.code, result.message) for result in record.results.values()] == [("cut_off", said)] * 2
    assert list(workers.settings.out_dir.rglob("*.wav")) == []


def test_nothing_is_cut_at_a_fixed_length(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2], generation={"max_new_tokens": 12, "min_new_tokens": 12}))
    run_chunk(workers.start(), chunk)
    results = workers.start().record(BATCH_ID).results.values()
    assert [(result.generated, result.frames) for result in results] == [(True, 12)] * 2


def test_a_segment_without_a_result_is_not_lost(workers: Workers, tmp_path: Path) -> None:
    class Forgetful(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield from super().speak(list(requests)[:2], observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    with pytest.raises(EngineBroken, match="it gave 1 segments no answer"):
        run_chunk(workers.start(engine=Forgetful()), chunk)
    assert run_chunk(workers.start(), chunk).generated == 3


def test_a_failed_segment_is_finished_when_the_chunk_is_delivered_again(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    for part in chunk.slices:
        workers.redis.delete(RedisKeys(workers.settings.fleet).reference(part.reference.digest))
    assert run_chunk(workers.start(), chunk).failed == 3
    assert run_chunk(workers.start(), chunk).failed == 3
    (file,) = workers.settings.out_dir.rglob("*.jsonl")
    assert len(file.read_text().splitlines()) == 3


def test_a_file_that_another_program_has_changed_is_not_written_over(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    run_chunk(workers.start(), chunk)
    path = workers.settings.out_dir / chunk.slices[0].segments[0][2]
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + b"xx")
    assert run_chunk(workers.start(), chunk).failed == 1
    assert path.read_bytes() == whole[:-2] + b"xx"
    assert run_chunk(workers.start(), chunk.model_copy(update={"overwrite": True})).generated == 2
    assert path.read_bytes() == whole


def test_a_file_without_its_line_is_replaced_by_the_next_run(workers: Workers, tmp_path: Path) -> None:
    """The process died after the file got its name, and before its line was in the record."""

    class Dying(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield from islice(super().speak(requests, observer), 1)
            raise EngineBroken("it dies")

    class Louder(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            for answer in super().speak(requests, observer):
                assert isinstance(answer, SegmentAudio)
                yield replace(answer, audio=answer.audio * 2)

    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    with pytest.raises(EngineBroken):
        run_chunk(workers.start(engine=Dying()), chunk)
    (lines,) = workers.settings.out_dir.rglob("*.jsonl")
    assert len(lines.read_text().splitlines()) == 1
    lines.write_text("")
    assert run_chunk(workers.start(engine=Louder()), chunk).generated == 2


@pytest.mark.parametrize("ended", [("cancelled", "1"), ("state", "done"), ("state", "broken")])
def test_a_chunk_stops_in_the_middle_of_a_segment_once_its_batch_is_cancelled_or_closed(
    workers: Workers, tmp_path: Path, ended: tuple[str, str]
) -> None:
    class Cancelling(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield from super().speak(islice(requests, 1), observer)
            workers.redis.hset(RedisKeys(workers.settings.fleet).batch(BATCH_ID), *ended)
            self._segment_s = 1e6
            yield from super().speak(requests, observer)

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    counts = run_chunk(workers.start(engine=Cancelling()), chunk)
    assert (counts.generated, counts.failed) == (1, 0)
    assert list(workers.settings.out_dir.rglob("*.journal")) == []


def test_a_record_that_cannot_be_written_ends_the_chunk_and_is_logged(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".cloner").write_text("a file where the record's folder should be")
    (chunk,) = workers.submit(write_batch(tmp_path, [2]))
    counts = run_chunk(workers.start(), chunk)
    assert (counts.generated, counts.failed) == (0, 0)
    assert f"the record in {tmp_path}/out/.cloner/{BATCH_ID} cannot be kept: " in capsys.readouterr().err
    assert progress(workers).finished


def test_an_interrupted_chunk_is_not_finished(workers: Workers, tmp_path: Path) -> None:
    class Stopped(FakeEngine):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            yield next(super().speak(requests, observer))
            raise SystemExit

    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    with pytest.raises(SystemExit):
        run_chunk(workers.start(engine=Stopped()), chunk)
    assert (progress(workers).generated, progress(workers).finished) == (1, False)
    assert run_chunk(workers.start(), chunk).generated == 3
    assert (progress(workers).generated, progress(workers).finished) == (3, True)


def test_a_take_that_is_rejected_is_generated_again_once(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    run_chunk(workers.start(), chunk)
    before = {index: line.digest for index, line in workers.start().record(BATCH_ID).results.items()}
    again = chunk.model_copy(update={"takes": [TakeRow(1, 2, 99, before[1])]})
    for _ in range(2):  # it is delivered again
        counts = run_chunk(workers.start(), again)
        assert (counts.generated, counts.failed) == (3, 0)
        (line, other), rest = workers.start().record(BATCH_ID).generated_lines(1), {0, 2}
        assert {line.take, other.take} == {1, 2}
        after = {index: workers.start().outputs.digest_of(f"audio/{index}.wav") for index in range(3)}
        assert after[1] == max(line, other, key=lambda found: found.take).digest != before[1]
        assert {index: after[index] for index in rest} == {index: before[index] for index in rest}
    (kept,) = (workers.settings.out_dir / f".cloner/{BATCH_ID}/takes").iterdir()
    assert before[1] in kept.name
