"""Outputs are on the disk when their chunk ends."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from redis import Redis

from cloner.errors import RecordFailed
from cloner.events import Event
from cloner.output.flush import flush_file_system
from cloner.worker import output_flush
from cloner.worker.chunk_run import run_chunk
from cloner.worker.output_flush import OutputFlush
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.workers import BATCH_ID, Workers


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are flushed."""
    folders: list[Path] = []
    monkeypatch.setattr(output_flush, "flush_file_system", folders.append)
    return folders


def test_a_chunk_is_flushed_with_its_lines_before_it_is_reported_as_finished(
    redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(redis, valkey_url, tmp_path / "out")
    worker = workers.start()
    (chunk,) = workers.submit(write_batch(tmp_path, [3]))
    there: list[tuple[int, int, bool]] = []

    def flush(folder: Path) -> None:
        (record,) = folder.rglob("*.jsonl")
        reported = worker.batches.progress_of(BATCH_ID, chunk.number)
        there.append(
            (len(list(folder.rglob("*.wav"))), record.read_bytes().count(b"\n"), bool(reported and reported.finished))
        )

    monkeypatch.setattr(output_flush, "flush_file_system", flush)
    run_chunk(worker, chunk)
    assert there[-1] == (3, 3, False)
    count = len(there)
    run_chunk(worker, chunk)
    assert len(there) == count, "nothing was written"


def test_files_are_flushed_while_others_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(output_flush, "FLUSH_INTERVAL_S", 0.01)
    flushed = threading.Event()
    monkeypatch.setattr(output_flush, "flush_file_system", lambda _folder: flushed.set())
    with OutputFlush(tmp_path) as flush:
        flush.written()
        assert flushed.wait(60)


@pytest.mark.parametrize(("error", "times"), [(RecordFailed(), 1), (SystemExit(), 0)])
def test_a_chunk_that_is_interrupted_is_not_flushed(
    tmp_path: Path, flushed: list[Path], error: BaseException, times: int
) -> None:
    def run() -> None:
        with OutputFlush(tmp_path) as flush:
            flush.written()
            raise error

    with pytest.raises(type(error)):
        run()
    assert flushed == [tmp_path] * times


def test_a_flush_that_fails_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(output_flush, "flush_file_system", fail)
    with OutputFlush(tmp_path) as flush:
        flush.written()
    assert len(find_lines(capsys.readouterr().err.splitlines(), Event.OUTPUTS_NOT_FLUSHED, folder=tmp_path)) == 1


def test_a_file_system_is_flushed_by_its_folder(tmp_path: Path) -> None:
    flush_file_system(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush_file_system(tmp_path / "nowhere")
