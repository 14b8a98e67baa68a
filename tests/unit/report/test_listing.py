"""What a report lists, read from real files: texts, references, peaks, takes that were replaced, and other attempts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloner.collector.result import gather
from cloner.events import Event
from cloner.logs import configure
from cloner.output.audio_files import OutputRoot
from cloner.output.audio_peaks import PEAKS
from cloner.output.kept_batch import BATCH, KeptBatch
from cloner.output.record import Record, batch_folder
from cloner.output.redo import NotedTake, note_takes
from cloner.output.takes import Takes, replaced_path
from cloner.protocol.results import Attempt, BatchResult, SegmentResult
from cloner.protocol.rows import TakeRow
from cloner.report import listing as module
from cloner.report.listing import read_listing
from cloner.report.rows import Listing, Row
from tests.support.closed_batches import WORKER, close_batch
from tests.support.log_lines import find_lines

FIRST, SECOND, THIRD = "20260101-a", "20260102-b", "20260103-c"


def listing(
    out: Path, batch_id: str = FIRST, change: Callable[[SegmentResult], SegmentResult] = lambda line: line
) -> Listing:
    """The listing of a batch of three segments, which is generated first unless it is there."""
    result, record = close_batch(out, {"anna": ["One.", "Two."], "ben": ["Three."]}, batch_id=batch_id, change=change)
    return read_listing(OutputRoot(out), result, record.results)


def _again(out: Path) -> tuple[BatchResult, dict[int, SegmentResult]]:
    """The closed batch's result and lines, as `cloner report` reads them."""
    record = Record(out, FIRST, with_keys=False)
    record.refresh()
    manifest = KeptBatch(record.folder).part(lambda _: True)
    return gather(manifest, record, out, cancelled=False, progress={}, now=2.0), record.results


def peaks_file(out: Path, batch_id: str = FIRST) -> Path:
    return batch_folder(out, batch_id).path / f"{WORKER}.peaks"


def test_each_segment_has_its_text_its_peaks_and_its_speakers_reference(tmp_path: Path) -> None:
    found = listing(tmp_path)
    assert [(row.index, row.text, row.output) for row in found.rows] == [
        (0, "One.", "book/0.wav"),
        (1, "Two.", "book/1.wav"),
        (2, "Three.", "book/2.wav"),
    ]
    assert {len(row.peaks) for row in found.rows} == {PEAKS}
    assert [found.speakers[row.speaker].id for row in found.rows] == ["anna", "anna", "ben"]
    for speaker in found.speakers:
        assert (tmp_path / speaker.reference).read_bytes().startswith(b"fLaC")
        assert speaker.transcript == f"I am {speaker.id}."
    assert (found.total, found.is_judged, found.problem) == (3, False, "")


def test_a_recording_that_is_not_there_is_not_offered(tmp_path: Path) -> None:
    listing(tmp_path)
    (tmp_path / ".cloner/references").rename(tmp_path / "references")
    (tmp_path / ".cloner/references").write_text("in the way")
    result, record = _again(tmp_path)
    assert [speaker.reference for speaker in read_listing(OutputRoot(tmp_path), result, record).speakers] == ["", ""]


@pytest.mark.parametrize(
    ("damage", "texts", "problem"),
    [
        (lambda path: path.unlink(), ["", "", ""], "the batch was not kept beside its record"),
        (lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2])), None, "is damaged"),
        (lambda path: (path.rename(path.with_suffix(".old")), path.mkdir()), ["", "", ""], "cannot be read ("),
    ],
)
def test_without_its_texts_a_batch_can_be_heard_all_the_same(
    tmp_path: Path, damage: Callable[[Path], object], texts: list[str] | None, problem: str
) -> None:
    listing(tmp_path)
    result, lines = _again(tmp_path)
    damage(batch_folder(tmp_path, FIRST).path / BATCH)
    found = read_listing(OutputRoot(tmp_path), result, lines)
    assert problem in found.problem
    assert [row.text for row in found.rows] == (texts or ["One.", "Two.", ""])
    assert all(row.peaks for row in found.rows)


def test_long_texts_are_shortened(tmp_path: Path) -> None:
    result, record = close_batch(tmp_path, {"anna": ["a" * 1000, "b" * 1001]})
    short, long = read_listing(OutputRoot(tmp_path), result, record.results).rows
    assert (len(short.text), short.text[-1], len(long.text), long.text[-1]) == (1000, "a", 1000, "…")


def test_files_without_kept_peaks_are_read_and_so_many_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [row.peaks for row in listing(tmp_path).rows]
    peaks_file(tmp_path).unlink()
    result, lines = _again(tmp_path)
    assert [row.peaks for row in read_listing(OutputRoot(tmp_path), result, lines).rows] == kept
    monkeypatch.setattr(module, "MAX_READ_FILES", 2)
    assert [row.peaks for row in read_listing(OutputRoot(tmp_path), result, lines).rows] == [*kept[:2], b""]


def test_a_failure_is_listed_with_its_reason(tmp_path: Path) -> None:
    found = listing(
        tmp_path, change=lambda line: replace(line, code="cut_off", message="it is cut") if line.segment == 1 else line
    )
    assert [(row.text, row.error, bool(row.peaks)) for row in found.rows] == [
        ("One.", "", True),
        ("Two.", "it is cut", False),
        ("Three.", "", True),
    ]


def test_a_suspect_is_listed_with_the_checks_that_failed_and_its_other_attempts(tmp_path: Path) -> None:
    folder = batch_folder(tmp_path, FIRST).path / "attempts"

    def change(line: SegmentResult) -> SegmentResult:
        def attempt(piece: int, number: int, failed: str, file: str = "", *, kept: bool = False) -> Attempt:
            return Attempt(piece, number, 1, 2.0, {failed: 2.0} if failed else {}, kept, file)

        attempts = (
            attempt(0, 1, "loop_in_codes", "1.0.1.wav"),
            attempt(0, 2, "too_quiet", kept=True),
            attempt(1, 1, "silence_inside", "missing.wav"),
            attempt(1, 2, "", "../../1.wav"),
            attempt(1, 3, "", kept=True),
        )
        return replace(line, suspicion=1.25, attempts=attempts) if line.segment == 1 else replace(line, suspicion=0.5)

    listing(tmp_path, change=change)
    folder.mkdir()
    shutil.copy(tmp_path / "book/1.wav", folder / "1.0.1.wav")
    found = read_listing(OutputRoot(tmp_path), *_again(tmp_path))
    row = found.rows[1]
    assert found.is_judged
    assert (row.suspicion, row.failed) == (1.25, ["too quiet"])
    (other,) = row.others
    assert (other.label, other.path) == ("piece 1, attempt 1: loop in codes", f".cloner/{FIRST}/attempts/1.0.1.wav")
    assert other.peaks == row.peaks


def redo(out: Path, batch_id: str, number: int, *, fails: bool = False) -> str:
    """Replace the audio of segment 1 by another take, as a redo does; returns the digest of the file before."""
    outputs = OutputRoot(out)
    key, digest = f"{1:064x}", outputs.digest_of("book/1.wav")
    note_takes(batch_folder(out, batch_id), [NotedTake(TakeRow(1, number, 5, digest), "book/1.wav", key)])
    if not fails:
        Takes(outputs, batch_id).keep_replaced("book/1.wav", key, digest)
        (out / "book/1.wav").unlink()
        shutil.copy(out / f"book/{0 if number == 2 else 2}.wav", out / "book/1.wav")
    return digest


def shown(row: Row) -> list[tuple[str, str]]:
    return [(other.label, other.path) for other in row.others]


def test_takes_that_redos_have_replaced_are_side_by_side_with_the_present_one(tmp_path: Path) -> None:
    first = listing(tmp_path).rows
    one = redo(tmp_path, SECOND, 2)
    redo(tmp_path, "20260102-failed", 3, fails=True)
    two = redo(tmp_path, THIRD, 4)
    found = read_listing(OutputRoot(tmp_path), *_again(tmp_path)).rows
    key = f"{1:064x}"
    assert shown(found[1]) == [
        ("take 1", replaced_path(SECOND, "book/1.wav", key, one)),
        ("take 2", replaced_path(THIRD, "book/1.wav", key, two)),
    ]
    assert found[1].take == 4
    assert [other.peaks for other in found[1].others] == [first[1].peaks, first[0].peaks]
    # What the record tells of the first take is not said of the fourth.
    assert (found[1].peaks, found[1].seconds) == (first[2].peaks, 0.0)
    assert (shown(found[0]), found[0].take, found[0].seconds > 0) == ([], 0, True)


def test_takes_of_another_text_under_the_same_name_are_not_shown(tmp_path: Path) -> None:
    listing(tmp_path)
    note_takes(batch_folder(tmp_path, SECOND), [NotedTake(TakeRow(1, 2, 5, "f" * 32), "book/1.wav", "e" * 64)])
    assert shown(read_listing(OutputRoot(tmp_path), *_again(tmp_path)).rows[1]) == []


def test_notes_of_a_redo_that_cannot_be_read_are_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure()
    listing(tmp_path)
    redo(tmp_path, SECOND, 2)
    (batch_folder(tmp_path, THIRD).path).mkdir()
    (batch_folder(tmp_path, THIRD).path / "redo.ndjson").write_text("no notes\n")
    assert len(shown(read_listing(OutputRoot(tmp_path), *_again(tmp_path)).rows[1])) == 1
    assert find_lines(capfd.readouterr().err.splitlines(), Event.REDO_UNREADABLE)
