"""Writing results on a disk that is full, and that has room again."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from cloner.engine.base import SegmentAudio, SegmentFailure
from cloner.errors import NoRoom, RecordFull
from cloner.events import Event
from cloner.output import audio_files
from cloner.output.journal import Journal
from cloner.output.peaks import find_peaks
from cloner.output.record import RecordWriter
from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import SegmentResult
from cloner.state.keys import RedisKeys
from cloner.worker.attempts import Attempts
from cloner.worker.cancellation import Cancellation
from cloner.worker.disk_wait import DiskWait
from cloner.worker.encoding import EncodedAudio
from cloner.worker.output_flush import OutputFlush
from cloner.worker.pending import PendingSegment
from cloner.worker.result_writer import ResultWriter
from cloner.worker.worker_process import WorkerProcess
from tests.support.log_lines import is_line_of
from tests.support.workers import BATCH_ID

pytestmark = pytest.mark.usefixtures("disk_tried_often")

SPOKEN = SegmentAudio(0, np.zeros(4096, dtype=np.float32), 2)


@pytest.fixture
def segment(chunk: ChunkMessage) -> PendingSegment:
    speaker = chunk.slices[0]
    return PendingSegment(*speaker.segments[0], key="k", speaker=speaker)


@pytest.fixture
def cancellation(worker: WorkerProcess) -> Cancellation:
    return Cancellation(worker, BATCH_ID)


@pytest.fixture
def disk(worker: WorkerProcess, cancellation: Cancellation) -> DiskWait:
    return DiskWait(worker, cancellation)


@pytest.fixture
def writer(worker: WorkerProcess, chunk: ChunkMessage, disk: DiskWait) -> ResultWriter:
    root = worker.outputs.root
    journal = Journal(root, BATCH_ID, 0, worker.name)
    attempts = Attempts(worker, chunk, journal)
    return ResultWriter(worker, chunk, worker.record(BATCH_ID), journal, disk, OutputFlush(root), attempts)


def test_audio_without_room_fails_and_the_next_waits(
    writer: ResultWriter,
    segment: PendingSegment,
    worker: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[int] = []

    def no_room(*_: object) -> None:
        raise NoRoom("0.wav cannot be written: full")

    def has_room(size: int) -> bool:
        asked.append(size)
        return len(asked) == 3

    monkeypatch.setattr(worker.outputs, "write_audio", no_room)
    monkeypatch.setattr(worker.outputs, "has_room", has_room)
    before = worker.steps
    with writer:
        result = writer.write(segment, SPOKEN)
    assert (result.code, result.message, result.size) == ("output", "0.wav cannot be written: full", 0)
    assert asked == [8192] * 3
    assert worker.steps == before + 3, "waiting counts as progress"
    full, again = capsys.readouterr().err.splitlines()
    assert is_line_of(full, Event.DISK_FULL)
    assert is_line_of(again, Event.DISK_HAS_ROOM)
    assert worker.record(BATCH_ID).results[0].code == "output"


@pytest.mark.parametrize("is_encoded", [True, False])
def test_the_next_waits_for_as_much_room_as_the_encoded_file_takes(
    writer: ResultWriter,
    segment: PendingSegment,
    worker: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_encoded: bool,
) -> None:
    asked: list[int] = []

    def encoding() -> EncodedAudio:
        if not is_encoded:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return EncodedAudio(bytes(40_000), 0.1, bytes(100))

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def has_room(size: int) -> bool:
        asked.append(size)
        return True

    monkeypatch.setattr(worker.outputs, "has_room", has_room)
    with writer:
        monkeypatch.setattr(audio_files, "write_new", no_room)
        assert writer.write(segment, SPOKEN, encoding).code == "output"
    assert asked == [40_000 if is_encoded else 8192]


@pytest.mark.parametrize("is_encoded", [True, False])
def test_the_peaks_of_a_file_are_kept_before_its_line(
    writer: ResultWriter,
    segment: PendingSegment,
    worker: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_encoded: bool,
) -> None:
    root, found = worker.outputs.root, []
    append = RecordWriter.append

    def with_peaks(lines: RecordWriter, result: SegmentResult) -> None:
        found.append(find_peaks(root, BATCH_ID, [result.digest], [])[result.digest])
        append(lines, result)

    monkeypatch.setattr(RecordWriter, "append", with_peaks)
    audio = SegmentAudio(0, np.full(4096, 0.2, dtype=np.float32), 2)
    with writer:
        writer.write(segment, audio, (lambda: EncodedAudio(b"a file", 0.1, bytes(100))) if is_encoded else None)
    assert found == [bytes(100) if is_encoded else bytes([51]) * 100]


def test_a_line_without_room_is_written_when_there_is(
    writer: ResultWriter, segment: PendingSegment, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer:
        append, tries = RecordWriter.append, []

        def full_at_first(lines: RecordWriter, result: SegmentResult) -> None:
            tries.append(result)
            if len(tries) < 3:
                raise RecordFull
            append(lines, result)

        monkeypatch.setattr(RecordWriter, "append", full_at_first)
        assert writer.write(segment, SPOKEN).generated
    assert len(tries) == 3
    assert worker.outputs.has_result(worker.record(BATCH_ID).results[0])


def test_a_cancellation_ends_the_wait_for_room(
    writer: ResultWriter,
    segment: PendingSegment,
    cancellation: Cancellation,
    worker: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise RecordFull

    def cancel(_size: int) -> bool:
        worker.redis.hset(RedisKeys(worker.settings.fleet).batch(BATCH_ID), "cancelled", "1")
        return False

    monkeypatch.setattr(worker.outputs, "has_room", cancel)
    with cancellation, writer:
        monkeypatch.setattr(RecordWriter, "append", full)
        with pytest.raises(RecordFull):
            writer.write(segment, SegmentFailure(0, "bad_reference", "bad"))


def test_the_worker_does_not_wait_where_a_folder_cannot_be_written(
    writer: ResultWriter,
    segment: PendingSegment,
    worker: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", refuse)
            assert writer.write(segment, SPOKEN).code == "output"
        assert writer.write(segment, SPOKEN).generated
    assert capsys.readouterr().err == ""
    assert [path.name for path in worker.outputs.root.rglob("*") if "part" in path.name] == []
