"""The record beside the outputs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner.errors import RecordFailed, RecordFull
from cloner.output.own_folder import OwnFolder
from cloner.output.record import Record, RecordWriter
from cloner.protocol.results import SegmentResult


def result(segment: int, *, code: str = "", assignment: int = 0, speaker: str = "anna") -> SegmentResult:
    return SegmentResult(
        segment=segment,
        speaker=speaker,
        output=f"{segment}.wav",
        key=f"key{segment}",
        assignment=assignment,
        worker="cpu.0@box",
        code=code,
    )


def test_what_is_written_is_read_by_another_process(tmp_path: Path) -> None:
    with RecordWriter(Record(tmp_path, "b"), "cpu.0@box") as writer:
        writer.append(result(0))
        writer.append(result(1, code="bad_reference"))
    record = Record(tmp_path, "b")
    record.refresh()
    assert record.results == {0: result(0), 1: result(1, code="bad_reference")}
    assert (record.finished(0), record.generated(0), record.generated(0, "anna")) == (2, 1, 1)


def test_refresh_reads_only_what_is_new_of_every_worker(tmp_path: Path) -> None:
    record = Record(tmp_path, "b")
    record.refresh()
    with (
        RecordWriter(Record(tmp_path, "b"), "cpu.0@box") as first,
        RecordWriter(Record(tmp_path, "b"), "cpu.1@box") as other,
    ):
        first.append(result(0))
        record.refresh()
        assert set(record.results) == {0}
        other.append(result(1, assignment=1))
        first.append(result(2))
        record.refresh()
    assert set(record.results) == {0, 1, 2}
    assert (record.finished(0), record.finished(1)) == (2, 1)


def test_a_generated_segment_stays_so_whatever_a_later_line_says(tmp_path: Path) -> None:
    record = Record(tmp_path, "b")
    record.add(result(0, code="output"))
    record.add(result(0))
    record.add(result(0, code="engine_failed"))
    assert record.results[0].generated
    assert (record.finished(0), record.generated(0)) == (1, 1)


def test_a_line_torn_by_a_crash_is_passed_over_and_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RecordWriter(Record(tmp_path, "b"), "cpu.0@box") as writer:
        writer.append(result(0))
    file = tmp_path / ".cloner" / "b" / "cpu.0@box.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"segment":1,"spea')
    record = Record(tmp_path, "b")
    record.refresh()
    assert set(record.results) == {0}
    with RecordWriter(record, "cpu.0@box") as writer:
        writer.append(result(2))
    again = Record(tmp_path, "b")
    again.refresh()
    assert set(again.results) == {0, 2}


def test_a_line_without_room_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2])

    with RecordWriter(Record(tmp_path, "b"), "cpu.0@box") as writer:
        writer.append(result(0))
        with monkeypatch.context() as full:
            full.setattr(os, "write", half)
            with pytest.raises(RecordFull, match="cannot be kept"):
                writer.append(result(1))
        writer.append(result(1))
    lines = (tmp_path / ".cloner/b/cpu.0@box.jsonl").read_bytes().splitlines()
    assert [SegmentResult.from_json(line).segment for line in lines] == [0, 1]


def test_another_failure_of_the_file_system_will_not_pass(tmp_path: Path) -> None:
    (tmp_path / ".cloner").write_text("in the way")
    with pytest.raises(RecordFailed) as failure:
        RecordWriter(Record(tmp_path, "b"), "cpu.0@box").open()
    assert type(failure.value) is RecordFailed


def two_assignments(root: Path) -> None:
    """Six segments of two workers, of which each has had an assignment of three, but for one that was passed on."""
    for worker, segments in (("cpu.0@box", (0, 1, 2, 5)), ("cpu.1@box", (3, 4))):
        with RecordWriter(Record(root, "b"), worker) as writer:
            for segment in segments:
                writer.append(result(segment, assignment=segment // 3, speaker=f'a "quoted","assignment":{segment},'))


def test_lines_about_other_assignments_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_assignments(tmp_path)
    parsed: list[int] = []
    take = Record._take

    def noted(record: Record, name: str, line: bytes) -> None:
        parsed.append(SegmentResult.from_json(line).segment)
        take(record, name, line)

    monkeypatch.setattr(Record, "_take", noted)
    record = Record(tmp_path, "b")
    record.refresh(1)
    record.refresh()
    assert (parsed, set(record.results)) == ([5, 3, 4], {3, 4, 5})
    assert (record.finished(0), record.finished(1)) == (0, 3)
    record.refresh(0)
    assert (parsed, set(record.results)) == ([5, 3, 4, 0, 1, 2], set(range(6)))
    assert (record.finished(0), record.generated(1)) == (3, 3)


def test_lines_that_were_passed_over_are_few_stretches_however_many(tmp_path: Path) -> None:
    record = Record(tmp_path, "b")
    record.refresh(9)
    with RecordWriter(Record(tmp_path, "b"), "cpu.0@box") as writer:
        for segment in range(100):
            writer.append(result(segment, assignment=segment // 50))
            record.refresh()
    assert {assignment: len(found) for assignment, found in record._passed.items()} == {0: 1, 1: 1}
    record.refresh(1)
    assert set(record.results) == set(range(50, 100))


def test_passed_over_lines_are_still_known_after_the_disk_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_assignments(tmp_path)
    record = Record(tmp_path, "b")
    record.refresh(1)
    monkeypatch.setattr(OwnFolder, "lines", failing)
    with pytest.raises(RecordFailed):
        record.refresh(0)
    monkeypatch.undo()
    record.refresh(0)
    assert set(record.results) == set(range(6))


def failing(*_: object) -> Iterator[bytes]:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("assignment", [None, 0])
def test_what_this_process_has_written_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assignment: int | None
) -> None:
    record = Record(tmp_path, "b")
    record.refresh(assignment)
    with RecordWriter(record, "cpu.0@box") as writer:
        for segment in range(3):
            writer.append(result(segment))
        monkeypatch.setattr(OwnFolder, "lines", lambda *_: pytest.fail("the file is read"))
        record.refresh(assignment)
        monkeypatch.undo()
        with RecordWriter(Record(tmp_path, "b"), "cpu.1@box") as other:
            other.append(result(7))
        record.refresh(assignment)
        writer.append(result(3))
    record.refresh(assignment)
    assert set(record.results) == {0, 1, 2, 3, 7}
    assert not record.generated_again()
    assert record.finished(0) == 5


def test_a_line_that_a_crash_has_cut_does_not_hide_what_is_written_after_it(tmp_path: Path) -> None:
    with RecordWriter(Record(tmp_path, "b"), "cpu.0@box") as writer:
        writer.append(result(0))
        writer.append(result(1))
    path = tmp_path / ".cloner/b/cpu.0@box.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    record = Record(tmp_path, "b")
    record.refresh(0)
    with RecordWriter(record, "cpu.0@box") as writer:
        writer.append(result(1))
        record.refresh(0)
        writer.append(result(2))
    record.refresh(0)
    assert set(record.results) == {0, 1, 2}
    assert record.finished(0) == 3
