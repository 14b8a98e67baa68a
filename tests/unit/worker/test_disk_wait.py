"""Waiting for a disk that fails: some errors pass, and the time for them is limited."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable

import numpy as np
import pytest

from cloner.engine.base import SegmentAudio
from cloner.errors import OutputUnavailable, RecordUnavailable
from cloner.events import Event
from cloner.protocol.messages import ChunkMessage
from cloner.state.keys import RedisKeys
from cloner.worker import disk_wait
from cloner.worker.cancellation import Cancellation
from cloner.worker.chunk_run import run_chunk
from cloner.worker.disk_wait import DiskWait
from cloner.worker.worker_process import WorkerProcess
from tests.support.log_lines import find_lines, is_line_of
from tests.support.workers import BATCH_ID, Workers

pytestmark = pytest.mark.usefixtures("disk_tried_often")

SPOKEN = SegmentAudio(0, np.zeros(4096, dtype=np.float32), 2)


class FailingDisk:
    """Calls of the operating system that fail, for a number of calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def fail(self, call: str, number: int, times: int, *, of: Callable[..., bool] = lambda *_: True) -> None:
        """Let calls of `os.<call>` fail with the error `number`, so many `times`; only those with arguments `of`."""
        real = getattr(os, call)
        left = times

        def fail(*arguments: object, **options: object) -> object:
            nonlocal left
            if left and of(*arguments):
                left -= 1
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        self._monkeypatch.setattr(os, call, fail)


@pytest.fixture
def failing_disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(monkeypatch)


def left_over(worker: WorkerProcess) -> list[str]:
    """Names of journals and of temporary files."""
    names = (path.name for path in worker.outputs.root.rglob("*"))
    return [name for name in names if name.startswith("part-") or name.endswith(".journal")]


def is_audio(_file: int, data: bytes) -> bool:
    return len(data) > 4096


def is_line(_file: int, data: bytes) -> bool:
    return bytes(data).startswith(b'{"segment":')


def is_journal_begin(_file: int, data: bytes) -> bool:
    return bytes(data).startswith(b'{"run":')


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN])
@pytest.mark.parametrize("what", [is_audio, is_line, is_journal_begin])
def test_what_fails_for_a_while_is_written_again(
    worker: WorkerProcess,
    chunk: ChunkMessage,
    failing_disk: FailingDisk,
    what: Callable[..., bool],
    number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_disk.fail("write", number, 3, of=what)
    assert run_chunk(worker, chunk).generated == 4
    log = capsys.readouterr().err.splitlines()
    (failing,) = find_lines(log, Event.DISK_FAILS, error=re.compile(re.escape(os.strerror(number))))
    assert failing.endswith(", at most 600 s")
    assert find_lines(log, Event.DISK_WORKS, folder=worker.outputs.root)
    assert sorted(worker.record(BATCH_ID).results) == [0, 1, 2, 3]
    assert left_over(worker) == []


def test_a_folder_that_cannot_be_read_for_a_while_is_read_again(
    worker: WorkerProcess, chunk: ChunkMessage, failing_disk: FailingDisk
) -> None:
    run_chunk(worker, chunk)
    failing_disk.fail("stat", errno.EIO, 2, of=lambda path, *_: str(path).endswith("/2.wav"))
    assert run_chunk(worker, chunk).generated == 4
    (file,) = worker.outputs.root.rglob("*.jsonl")
    assert len(file.read_text().splitlines()) == 4, "nothing was generated again"


def test_a_line_that_was_written_in_part_is_ended(
    worker: WorkerProcess, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    torn: list[int] = []

    def write_half(file: int, data: bytes) -> int:
        if is_line(file, data) and not torn:
            torn.append(write(file, data[:100]))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(file, data)

    monkeypatch.setattr(os, "write", write_half)
    assert run_chunk(worker, chunk).generated == 4
    assert sorted(worker.record(BATCH_ID).results) == [0, 1, 2, 3]


@pytest.mark.parametrize("disk_wait_s", [0.0, 0.05])
def test_after_the_time_for_errors_the_rest_of_the_chunk_fails_and_can_be_submitted_again(
    workers: Workers,
    chunk: ChunkMessage,
    failing_disk: FailingDisk,
    disk_wait_s: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workers.settings = workers.settings.model_copy(update={"disk_wait_s": disk_wait_s})
    worker = workers.start()
    written: list[bytes] = []

    def is_second_audio(file: int, data: bytes) -> bool:
        written.extend([b""] * is_audio(file, data))
        return is_audio(file, data) and len(written) > 1

    failing_disk.fail("write", errno.EIO, 10**9, of=is_second_audio)
    counts = run_chunk(worker, chunk)
    assert (counts.generated, counts.failed, counts.finished) == (1, 3, True)
    results = worker.record(BATCH_ID).results
    assert [results[index].code for index in range(4)] == ["", "output", "output", "output"]
    assert results[1].message.endswith("Input/output error")
    assert results[2].message.startswith("an earlier segment of its chunk could not be written for as long as CLONER_")
    log = capsys.readouterr().err.splitlines()
    assert len(find_lines(log, Event.DISK_FAILS)) == 1
    assert find_lines(log, Event.DISK_WORKS) == []
    assert left_over(worker) == []


def test_the_time_is_counted_over_all_errors_of_a_chunk(worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    cancellation = Cancellation(worker, BATCH_ID)
    disk = DiskWait(worker, cancellation)
    now, waits = [0.0], []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return False

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(disk_wait, "DISK_INTERVAL_S", 100.0)
    monkeypatch.setattr(cancellation, "wait", wait)

    def failing_until(tries: int) -> Callable[[], int]:
        count = 0

        def work() -> int:
            nonlocal count
            count += 1
            if count <= tries:
                raise OutputUnavailable("gone")
            return count

        return work

    before = worker.steps
    assert disk.retry(failing_until(4)) == 5
    assert not disk.failure
    with pytest.raises(OutputUnavailable):
        disk.retry(failing_until(10))
    assert (sum(waits), disk.failure) == (600.0, "gone")
    assert worker.steps == before + 6, "waiting counts as progress"
    assert disk.retry(failing_until(0)) == 1
    with pytest.raises(OutputUnavailable):
        disk.retry(failing_until(1))


def test_a_cancellation_ends_the_wait(worker: WorkerProcess) -> None:
    def fail() -> None:
        worker.redis.hset(RedisKeys(worker.settings.fleet).batch(BATCH_ID), "cancelled", "1")
        raise RecordUnavailable

    with Cancellation(worker, BATCH_ID) as cancellation:
        disk = DiskWait(worker, cancellation)
        with pytest.raises(RecordUnavailable):
            disk.retry(fail)
    assert not disk.failure


def test_a_record_that_stays_away_ends_the_chunk_with_the_reason(
    workers: Workers, chunk: ChunkMessage, failing_disk: FailingDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.settings = workers.settings.model_copy(update={"disk_wait_s": 0.05})
    worker = workers.start()
    failing_disk.fail("write", errno.EROFS, 10**9)
    counts = run_chunk(worker, chunk)
    assert (counts.generated, counts.failed, counts.finished) == (0, 0, True)
    assert counts.error.endswith("Read-only file system")
    assert is_line_of(capsys.readouterr().err.splitlines()[-1], Event.FAILED)
    assert left_over(worker) == ["0.cpu.0@box.journal"], "it stays until the batch is closed"
