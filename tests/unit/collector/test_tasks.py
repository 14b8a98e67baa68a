"""A batch's result, made from its manifest and its record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cloner.collector.files import write_beside
from cloner.collector.result import gather
from cloner.events import Event
from cloner.logs import configure
from cloner.output.record import Record
from cloner.protocol.results import BatchResult, SegmentResult, SpeakerResult
from cloner.settings import Settings
from cloner.state.progress import ChunkProgress
from tests.support.log_lines import find_lines
from tests.support.manifests import manifest
from tests.support.records import segment_result


def gathered(
    tmp_path: Path,
    *results: SegmentResult,
    cancelled: bool = False,
    progress: Mapping[int, ChunkProgress] | None = None,
) -> BatchResult:
    record = Record(tmp_path, "b")
    for result in results:
        record.add(result)
    return gather(manifest(), record, tmp_path, cancelled=cancelled, progress=progress or {}, now=4.5)


def test_every_segment_is_a_result_or_an_error(tmp_path: Path) -> None:
    result = gathered(
        tmp_path,
        segment_result(0),
        segment_result(3, worker="cpu.1@box"),
        segment_result(4, code="bad_reference", message="It is silent.", frames=0, audio_s=0),
    )
    assert (result.total, result.generated, result.failed) == (5, 2, 3)
    assert result.results == {0: "0.wav", 3: "3.wav"}
    assert {index: error.code for index, error in result.errors.items()} == {
        1: "missing",
        2: "missing",
        4: "bad_reference",
    }
    assert result.errors[4].message == "It is silent."
    assert result.workers == {"cpu.0@box": 1, "cpu.1@box": 1}
    assert (result.elapsed_s, result.audio_s, result.frames) == (3.5, 1.858, 40)
    assert result.speakers == {"anna": SpeakerResult(texts=5, generated=2, failed=3, audio_s=1.858)}
    assert (result.source, result.submitted_at) == ("b.json", 1.0)


@pytest.mark.parametrize(("many", "cut"), [(5, True), (6, False)])
def test_messages_of_very_many_errors_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, cut: bool
) -> None:
    monkeypatch.setattr("cloner.collector.result.MANY_ERRORS", many)
    errors = gathered(tmp_path, progress={7: ChunkProgress(given_up=True)}).errors
    assert [len(errors[index].message) <= 80 for index in (0, 2)] == [cut, cut]
    assert errors[2].message.startswith("the message of its chunk killed the process of its worker again and again")


def test_of_a_chunk_that_is_given_up_what_is_not_recorded_has_crashed(tmp_path: Path) -> None:
    errors = gathered(tmp_path, segment_result(1), progress={7: ChunkProgress(given_up=True)}).errors
    assert {index: error.code for index, error in errors.items()} == {
        0: "missing",
        2: "crashed",
        3: "missing",
        4: "missing",
    }
    assert "`launcher dead-letters`" in errors[2].message


def test_audio_of_earlier_batches_is_counted_separately_too(tmp_path: Path) -> None:
    result = gathered(tmp_path, segment_result(0, reused=True), segment_result(1))
    assert (result.reused, result.reused_audio_s, result.audio_s) == (1, 0.929, 1.858)


def _pieces_of_a_page_that_breaks() -> Iterator[str]:
    yield "the first half"
    raise ValueError("a name that the template cannot show")


@pytest.mark.parametrize("in_the_way", ["a page that breaks", "a folder of its name"])
def test_a_report_that_cannot_be_written_is_logged_and_leaves_no_file(
    tmp_path: Path, in_the_way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(out_dir=tmp_path)
    kept = tmp_path / ".cloner/b"
    kept.mkdir(parents=True)
    left = kept / "report.html-7f.part"
    left.write_text("a collector was killed while writing it")
    os.utime(left, (0, 0))
    (kept / "report.html").write_text("of an earlier run")
    pieces = _pieces_of_a_page_that_breaks()
    if in_the_way == "a folder of its name":
        (kept / "report.html").unlink()
        (kept / "report.html").mkdir()
        pieces = iter(["whole"])
    configure()
    write_beside(settings, "b", "report.html", pieces)
    assert find_lines(capfd.readouterr().err.splitlines(), Event.FILE_NOT_WRITTEN, file="report.html", batch="b")
    assert [path.name for path in kept.iterdir()] == ["report.html"]


def test_a_batch_that_is_closed_twice_keeps_the_last_report(tmp_path: Path) -> None:
    for words in ("first", "second"):
        write_beside(Settings(out_dir=tmp_path), "b", "report.html", [words, "!"])
    (written,) = (tmp_path / ".cloner/b").iterdir()
    assert written.read_text() == "second!"


def test_of_a_chunk_whose_record_could_not_be_kept_what_is_not_recorded_fails_with_the_reason(tmp_path: Path) -> None:
    errors = gathered(tmp_path, segment_result(1), progress={7: ChunkProgress(error="the disk is gone")}).errors
    assert (errors[2].code, errors[2].message) == ("output", "the disk is gone")
    assert {error.code for index, error in errors.items() if index != 2} == {"missing"}


def test_the_error_of_a_segment_without_a_line_names_the_record(tmp_path: Path) -> None:
    assert str(tmp_path / ".cloner" / "b") in gathered(tmp_path).errors[0].message


def test_segments_that_a_cancelled_batch_has_not_generated_are_cancelled(tmp_path: Path) -> None:
    result = gathered(tmp_path, segment_result(0), cancelled=True)
    assert result.cancelled
    assert {error.code for error in result.errors.values()} == {"cancelled"}


def test_a_result_is_the_same_after_packing(tmp_path: Path) -> None:
    result = gathered(tmp_path, segment_result(0))
    assert BatchResult.unpack(result.pack()) == result
    assert "\n" not in result.to_json()
