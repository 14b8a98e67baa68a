"""Files compared with the record."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.output.verify import choose_by_files, line_of_file, withdraw_changed
from cloner.protocol.results import SegmentResult
from tests.support.ownership import Known


@pytest.fixture
def outputs(tmp_path: Path) -> OutputRoot:
    return OutputRoot(tmp_path)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, "b")


def generate(outputs: OutputRoot, segment: int, level: float = 0.5, worker: str = "cpu.0@box") -> SegmentResult:
    """Write a segment's file; returns its line."""
    output = f"anna/{segment}.wav"
    written = asdict(outputs.write_audio(output, np.full(2048, level, dtype=np.float32), 44_100, Known()))
    return SegmentResult(
        segment=segment, speaker="anna", output=output, key="k", assignment=0, worker=worker, frames=1, **written
    )


def test_files_that_are_as_they_were_written_stay_in_the_result(outputs: OutputRoot, record: Record) -> None:
    for segment in range(3):
        record.add(generate(outputs, segment))
    os.utime(outputs.root / "anna/1.wav", ns=(1, 1))  # a copy has another time and the same bytes
    before = dict(record.results)
    assert withdraw_changed(record, outputs) == {}
    assert record.results == before


@pytest.mark.parametrize("change", ["another size", "the same size", "removed", "a folder", "a link"])
def test_a_file_that_was_changed_is_withdrawn(outputs: OutputRoot, record: Record, change: str) -> None:
    for segment in range(2):
        record.add(generate(outputs, segment))
    path = outputs.root / "anna/1.wav"
    whole = path.read_bytes()
    path.unlink()
    match change:
        case "another size":
            path.write_bytes(whole + b"x")
        case "the same size":
            path.write_bytes(bytes(len(whole)))
        case "a folder":
            path.mkdir()
        case "a link":
            (outputs.root / "same").write_bytes(whole)
            path.symlink_to(outputs.root / "same")
    changed = withdraw_changed(record, outputs)
    assert list(record.results) == [0]
    assert list(changed) == [1]
    assert (changed[1].code, changed[1].output, changed[1].frames, changed[1].size) == ("changed", "anna/1.wav", 0, 0)
    assert changed[1].message.startswith("anna/1.wav was removed or written over after cpu.0@box had written it: ")


def test_a_failed_segment_has_no_file_to_compare(outputs: OutputRoot, record: Record) -> None:
    failed = replace(generate(outputs, 0), code="bad_reference", size=0)
    record.add(failed)
    assert withdraw_changed(record, outputs) == {}
    assert record.results == {0: failed}


@pytest.mark.parametrize("last_written_is_read", ["first", "last"])
def test_of_two_workers_lines_that_of_the_file_counts(
    outputs: OutputRoot, record: Record, last_written_is_read: str
) -> None:
    replaced = generate(outputs, 0, 0.25, worker="cpu.1@box")
    there = generate(outputs, 0, 0.5)
    for line in [there, replaced] if last_written_is_read == "first" else [replaced, there]:
        record.add(line)
    assert line_of_file(record, 0, outputs) == there
    assert withdraw_changed(record, outputs) == {}
    assert record.results == {0: there}


def test_a_reused_line_does_not_hide_that_of_the_file(outputs: OutputRoot, record: Record) -> None:
    reused = replace(generate(outputs, 0, 0.25), reused=True)
    there = generate(outputs, 0, 0.5)
    record.add(there)
    record.add(reused)
    assert record.results == {0: there}
    assert withdraw_changed(record, outputs) == {}


def test_of_lines_in_any_order_the_one_of_the_file_is_the_result_and_none_is_lost(
    outputs: OutputRoot, record: Record
) -> None:
    earlier = generate(outputs, 0, 0.5)
    outputs.remove(earlier.output)
    later = generate(outputs, 0, 0.25)
    for line in (later, earlier, generate(outputs, 1)):
        record.add(line)
    choose_by_files(record, outputs)
    assert record.results[0] == later
    assert record.generated_lines(0) == [later, earlier]
