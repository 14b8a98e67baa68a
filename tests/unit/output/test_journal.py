"""The journal of a chunk: which segments were in flight when a process crashed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloner.errors import EngineBroken, RecordFailed, RecordUnavailable
from cloner.output import journal as journal_module
from cloner.output.audio_files import OutputRoot, codes_part
from cloner.output.journal import Journal, Run, discard_journals
from cloner.output.record import Record
from cloner.protocol.results import SegmentResult

PART = "part-" + "0" * 32


def make(folder: Path, worker: str = "cpu.0@box", chunk: int = 3) -> Journal:
    return Journal(folder, "b", chunk, worker)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.journal"))


def leave(folder: Path, error: BaseException | None, worker: str = "cpu.0@box") -> None:
    """A run that ends with this error."""
    with suppress(EngineBroken, RecordFailed, SystemExit), make(folder, worker) as journal:
        journal.begin(PART, 5)
        journal.started(7, alone=False)
        if error:
            raise error


def test_a_chunk_that_was_never_begun_leaves_no_journal(tmp_path: Path) -> None:
    with make(tmp_path) as journal:
        assert journal.runs == []
    assert list(tmp_path.rglob("*")) == []


def test_the_journal_of_a_killed_process_has_its_segments_in_flight(tmp_path: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from cloner.output.journal import Journal\n"
        f"journal = Journal(Path({str(tmp_path)!r}), 'b', 3, 'cpu.0@box')\n"
        f"journal.begin({PART!r}, 5); journal.started(7, alone=False); journal.started(9, alone=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert make(tmp_path, "cpu.1@other").crashed == [Run(1, "cpu.0@box", PART, 5, {7: False, 9: True}, ended=False)]
    assert make(tmp_path, chunk=4).crashed == []
    assert make(tmp_path, chunk=33).crashed == []


def test_a_finished_chunk_removes_the_journals_of_all_workers(tmp_path: Path) -> None:
    leave(tmp_path, EngineBroken(), worker="cpu.1@box")
    other = make(tmp_path, chunk=33)
    other.begin(PART, 0)
    leave(tmp_path, None)
    assert files(tmp_path) == ["33.cpu.0@box.journal"]


@pytest.mark.parametrize(
    ("error", "crashed"),
    [(EngineBroken(), True), (RecordFailed(), False), (SystemExit(), False)],
    ids=["a broken engine", "another error", "stopped"],
)
def test_only_a_broken_engine_counts_as_a_crash(tmp_path: Path, error: BaseException, crashed: bool) -> None:
    leave(tmp_path, error)
    (run,) = make(tmp_path).runs
    assert run.ended is not crashed
    assert run.started == {7: False}


def test_segments_started_after_a_stop_are_not_suspected(tmp_path: Path) -> None:
    with suppress(EngineBroken), make(tmp_path) as journal:
        journal.begin(PART, 5)
        journal.started(7, alone=False)
        journal.end()
        journal.started(8, alone=False)
        raise EngineBroken
    journal.end()
    assert make(tmp_path).runs == [Run(1, "cpu.0@box", PART, 5, {7: False}, ended=True)]


def test_runs_are_numbered_over_all_workers(tmp_path: Path) -> None:
    for worker in ("z", "a", "m"):
        leave(tmp_path, EngineBroken(), worker)
    assert [run.number for run in make(tmp_path).runs] == [1, 2, 3]
    assert files(tmp_path) == ["3.a.journal", "3.m.journal", "3.z.journal"]


def test_an_incomplete_line_is_skipped_and_ended(tmp_path: Path) -> None:
    leave(tmp_path, EngineBroken())
    (path,) = tmp_path.rglob("*.journal")
    with path.open("ab") as file:
        file.write(b'{"run":1,"segm')
    leave(tmp_path, SystemExit())
    assert [(run.number, run.ended) for run in make(tmp_path).runs] == [(1, False), (2, True)]


def test_another_name_than_a_temporary_files_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / ".cloner/b"
    folder.mkdir(parents=True)
    (folder / "3.x.journal").write_text('{"run":1,"part":"../../precious"}\n')
    assert make(tmp_path).runs == []


def test_a_journal_that_cannot_be_written_is_logged_once_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_file: int, _line: bytes) -> None:
        raise OSError(28, "No space left on device")

    with make(tmp_path) as journal:
        journal.begin(PART, 0)
        monkeypatch.setattr(journal_module, "append_line", full)
        for segment in range(3):
            journal.started(segment, alone=False)
    assert capsys.readouterr().err.count("cannot be kept, so a crash may not be put down to its cause") == 1


def test_a_folder_that_cannot_be_written_is_an_error_of_the_record(tmp_path: Path) -> None:
    (tmp_path / ".cloner").write_text("in the way")
    with pytest.raises(RecordFailed, match="cannot be kept"):
        make(tmp_path).begin(PART, 0)


def test_the_journals_of_a_closed_batch_and_what_their_runs_left_can_be_removed(tmp_path: Path) -> None:
    outputs = OutputRoot(tmp_path)
    leave(tmp_path, EngineBroken())
    leave(tmp_path, SystemExit(), worker="cpu.1@box")
    housekeeping = tmp_path / ".cloner"
    for name in (PART, codes_part(PART), "part-" + "1" * 32):
        (housekeeping / name).write_bytes(b"half")
    (housekeeping / "b" / "cpu.0@box.jsonl").write_bytes(b"")
    discard_journals(Record(tmp_path, "b"), outputs, [])
    left = sorted(path.name for path in housekeeping.rglob("*") if path.is_file())
    assert left == ["cpu.0@box.jsonl", "part-" + "1" * 32], "of another process"


@pytest.mark.parametrize("when", ["begin", "started"])
def test_after_an_error_the_file_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    journal = make(tmp_path)
    write = os.write
    stale: list[int] = []

    def write_to_a_stale_file(file: int, data: bytes) -> int:
        if not stale:
            stale.append(write(file, data[:5]))
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return write(file, data)

    if when == "started":
        journal.begin(PART, 0)
    monkeypatch.setattr(os, "write", write_to_a_stale_file)
    if when == "begin":
        with pytest.raises(RecordUnavailable):
            journal.begin(PART, 0)
        journal.begin(PART, 0)
    else:
        journal.started(6, alone=False)
    journal.started(7, alone=False)
    (run,) = make(tmp_path).runs
    assert run == Run(1, "cpu.0@box", PART, 0, {7: False})


def test_a_file_without_a_line_goes_with_the_journal_that_knows_it(tmp_path: Path) -> None:
    outputs = OutputRoot(tmp_path)
    journal = Journal(tmp_path, "b", 0, "w")
    journal.begin(outputs.part, 0)
    silence = np.zeros(100, dtype=np.float32)
    for name in ("recorded.wav", "unrecorded.wav", "failed.wav"):
        journal.publishes(outputs.write_audio(name, silence, 44_100).digest)
    (tmp_path / "failed.wav").write_bytes(b"of another program")
    (tmp_path / "unrecorded.wav").unlink()
    written = outputs.write_audio("unrecorded.wav", silence + 0.5, 44_100)
    journal.publishes(written.digest)
    record = Record(tmp_path, "b")
    line = SegmentResult(segment=0, speaker="a", output="recorded.wav", key="k", assignment=0, worker="w")
    record.add(replace(line, digest=outputs.digest_of("recorded.wav")))
    discard_journals(record, outputs, ["unrecorded.wav", "failed.wav", "missing.wav"])
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["failed.wav", "recorded.wav"]
    assert not [*tmp_path.rglob("*.journal")]


def test_a_file_that_is_written_after_the_stop_is_known_too(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.begin(PART, 0)
    journal.end()
    journal.started(1, alone=False)
    journal.publishes("d" * 32)
    (run,) = make(tmp_path).runs
    assert (run.ended, run.started, run.digests) == (True, {}, {"d" * 32})
