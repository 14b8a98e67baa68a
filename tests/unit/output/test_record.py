"""The record beside the outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner.errors import RecordFailed, RecordFull
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
