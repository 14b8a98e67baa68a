"""An edited batch: files whose lines have moved get their new names, and those of other batches are left alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloner.errors import OutputsTaken, RecordFailed
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import Journal
from cloner.output.origin import Origin
from cloner.output.record import Record, RecordWriter, batch_folder
from cloner.output.reuse import reuse_finished
from cloner.output.search import leftover_files
from cloner.protocol.messages import SpeakerSliceRow
from tests.support.edited_batches import (
    LINES,
    WORKER,
    audio_of,
    batch,
    deaths,
    reused,
    seed_of,
    speak,
    without_links,
)
from tests.support.ownership import Known

INSERTED = ["zero", *LINES]

EDITS = {
    "a line is inserted at the top": INSERTED,
    "the first line is removed": LINES[1:],
    "two lines change places": ["two", "one", "three", "four"],
    "all lines are rotated": ["four", "one", "two", "three"],
    "a line changes": ["one", "other", "three", "four"],
    "a line is said twice": ["one", "one again", "one", "two", "three", "four"],
}


def said(root: Path) -> dict[str, bytes]:
    """The outputs: name -> bytes."""
    return {path.name: path.read_bytes() for path in sorted((root / "anna").iterdir())}


def bytes_of(root: Path, texts: Sequence[str]) -> dict[str, bytes]:
    """The same, as they should be."""
    other = OutputRoot(root / "expected")
    for text in texts:
        other.write_audio(f"{seed_of(text)}.wav", audio_of(text), 44_100)
    return {f"{n:04}.wav": (other.root / f"{seed_of(text)}.wav").read_bytes() for n, text in enumerate(texts, start=1)}


@pytest.mark.parametrize("texts", EDITS.values(), ids=EDITS.keys())
def test_what_an_edit_moves_is_moved(tmp_path: Path, texts: list[str]) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    before = {path.read_bytes(): path.stat().st_mtime_ns for path in (root / "anna").iterdir()}
    edited = batch("second", texts)
    again = reused(root, edited)
    assert again == {text.removesuffix(" again") for text in texts} & {*LINES}
    expected = bytes_of(tmp_path, texts)
    assert said(root) == {name: data for name, data in expected.items() if data in before}
    for path in (root / "anna").iterdir():
        assert path.stat().st_mtime_ns == before[path.read_bytes()]
    inodes = Counter(path.stat().st_ino for path in (root / "anna").iterdir())
    assert set(inodes.values()) == {1}, "an edit of one file would change another"
    speak(root, edited)
    assert said(root) == expected
    # The next run finds all of it in place.
    assert reused(root, batch("third", texts)) == {text.removesuffix(" again") for text in texts}


def test_a_take_that_an_edit_replaced_comes_back_with_the_edit_undone(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    speak(root, batch("second", ["one", "other", "three", "four"]))
    assert reused(root, batch("third", LINES)) == {*LINES}
    assert said(root) == bytes_of(tmp_path, LINES)


@pytest.mark.slow
@pytest.mark.parametrize("texts", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("next_id", ["second", "third"], ids=["the batch goes on", "a new batch follows"])
def test_a_death_at_any_instant_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], next_id: str
) -> None:
    wanted = {text.removesuffix(" again") for text in texts}
    expected = bytes_of(tmp_path, texts)
    deadly = 0
    for deadly, root in deaths(tmp_path, monkeypatch, lambda root: reused(root, batch("second", texts))):
        again = batch(next_id, texts)
        assert reused(root, again) == wanted & {*LINES}, f"call {deadly}"
        speak(root, again)
        there = said(root)
        assert {name: there[name] for name in expected} == expected, f"call {deadly}"
    assert deadly > 5


@pytest.mark.parametrize("texts", EDITS.values(), ids=EDITS.keys())
def test_files_are_copied_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    without_links(monkeypatch)
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    speak(root, batch("second", texts))
    assert said(root) == bytes_of(tmp_path, texts)


def test_the_files_of_another_batch_are_copied_and_left(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES[:1]))
    other = batch("second", ["x", "one"], path="/home/other.json")
    rows = [row._replace(output=f"anna/other-{row.segment}.wav") for row in other.speakers[0].segments]
    other.speakers[0].segments[:] = rows
    assert reused(root, other) == {"one"}
    first, copy = root / "anna/0001.wav", root / "anna/other-1.wav"
    assert first.read_bytes() == copy.read_bytes()
    assert first.stat().st_ino != copy.stat().st_ino


def test_files_of_others_are_listed_and_only_replaced_if_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    (root / "anna/0005.wav").write_bytes(b"of another program")
    (root / "anna/0006.wav").touch()
    before = said(root)
    texts = ["one", "b", "c", "d", "e", "f"]
    with pytest.raises(OutputsTaken, match=r"^4 of the outputs: anna/0002.wav, .*0005.wav: each is there") as raised:
        reused(root, batch("second", texts, path="/home/other.json"))
    assert "--prefix" not in raised.value.message
    prefixed = batch("second", texts, path="/home/other.json").model_copy(update={"prefix": "other"})
    with pytest.raises(OutputsTaken, match=r"under another --prefix$"):
        reused(root, prefixed)
    assert said(root) == before
    # To a version of the first batch, only the file of the other program is foreign.
    with pytest.raises(OutputsTaken, match=r"^1 of the outputs: anna/0005.wav: "):
        reused(root, batch("third", texts))
    assert said(root) == before
    speak(root, batch("fourth", texts, path="/home/other.json", overwrite=True))
    assert said(root) == bytes_of(tmp_path, texts)


def test_a_file_of_the_batch_s_own_that_was_cut_or_edited_is_kept_with_a_sentence_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    (root / "anna/0002.wav").write_bytes((root / "anna/0002.wav").read_bytes()[:100])
    (root / "anna/0003.wav").write_bytes(b"edited by hand")
    (root / "anna/0005.wav").write_bytes(b"of another program")
    before = said(root)
    with pytest.raises(OutputsTaken) as raised:
        reused(root, batch("second", [*LINES, "five"]))
    altered, others = raised.value.message.split("; ")
    assert altered.startswith(
        "2 of the outputs: anna/0002.wav, anna/0003.wav: this batch has written each, and something"
    )
    assert "move it if it is to be kept, or submit the batch with --overwrite" in altered
    assert others.startswith("1 of the outputs: anna/0005.wav: each is there, and not as this batch has written it")
    assert others.endswith("or with another --out")
    assert said(root) == before
    speak(root, batch("third", [*LINES, "five"], overwrite=True))
    assert said(root) == bytes_of(tmp_path, [*LINES, "five"])


def test_a_file_whose_line_a_crash_prevented_is_known_by_the_journal(tmp_path: Path) -> None:
    root = tmp_path / "out"
    outputs = OutputRoot(root)
    Origin.of(batch("first", ["one"])).write(batch_folder(root, "first"))
    journal = Journal(root, "first", 0, WORKER)
    journal.begin(outputs.part, 0)
    outputs.write_audio("anna/0001.wav", audio_of("one"), 44_100, journal_only(journal))
    assert reused(root, batch("second", ["other"])) == set()
    assert said(root) == {}


def journal_only(journal: Journal) -> Known:
    class Noting(Known):
        def publishes(self, digest: str) -> None:
            journal.publishes(digest)

    return Noting()


def test_a_part_of_a_batch_takes_no_name_from_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", ["one", "two"]))
    part = batch("second", ["x", "x", "one again"]).model_copy(update={"partial": True})
    part.speakers[0].segments[:] = part.speakers[0].segments[2:]
    part.chunks[0].slices[:] = [SpeakerSliceRow(speaker=0, start=0, stop=1, position=1, texts=1)]
    assert reused(root, part) == {"one"}
    assert sorted(said(root)) == ["0001.wav", "0002.wav", "0003.wav"]


def test_files_of_earlier_versions_that_no_line_names_are_left_over(tmp_path: Path) -> None:
    root = tmp_path / "out"
    outputs = OutputRoot(root)
    speak(root, batch("first", LINES))
    speak(root, batch("other", ["x"], path="/home/other.json", overwrite=True))
    (root / "anna/0004.wav").write_bytes(b"of another program")
    assert leftover_files(outputs, batch("second", ["new"])) == ["anna/0002.wav", "anna/0003.wav"]
    assert leftover_files(outputs, batch("second", LINES)) == []
    assert leftover_files(outputs, batch("second", ["new"], path="/home/third.json")) == []


def test_an_earlier_version_that_is_still_open_keeps_its_files(tmp_path: Path) -> None:
    root = tmp_path / "out"
    outputs = OutputRoot(root)
    speak(root, batch("zeroth", LINES))
    speak(root, batch("first", LINES), beside=["first"])  # reuses the files of the one before
    renamed = batch("second", LINES)
    rows = renamed.speakers[0].segments
    rows[:] = [row._replace(output=f"other/{row.output}") for row in rows]
    speak(root, renamed, beside=["first", "second"])
    assert said(root) == bytes_of(tmp_path, LINES)
    assert sorted(path.name for path in (root / "other/anna").iterdir()) == sorted(said(root))
    assert leftover_files(outputs, renamed, ["first"]) == []
    inodes = Counter(path.stat().st_ino for path in (root).rglob("*.wav") if ".cloner" not in path.parts)
    assert set(inodes.values()) == {1}, "an edit of one file would change another"
    speak(root, batch("third", ["new"]))
    assert leftover_files(outputs, batch("third", ["new"]))


def test_nothing_is_moved_while_the_record_of_an_open_version_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("zeroth", LINES))
    speak(root, batch("first", LINES), beside=["first"])
    (batch_folder(root, "first").path / "other.jsonl").mkdir()
    renamed = batch("second", LINES)
    rows = renamed.speakers[0].segments
    rows[:] = [row._replace(output=f"other/{row.output}") for row in rows]
    with pytest.raises(RecordFailed):
        reuse_finished(renamed, OutputRoot(root), ["first", "second"])
    assert said(root) == bytes_of(tmp_path, LINES)


def test_another_ending_is_another_file(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    flac = batch("second", LINES)
    flac.speakers[0].segments[:] = [
        row._replace(output=row.output.replace(".wav", ".flac")) for row in flac.speakers[0].segments
    ]
    before = said(root)
    assert reused(root, flac) == set()
    assert said(root) == before


def test_many_lines_are_moved_without_listing_a_folder_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "out"
    texts = [f"line {n:03}" for n in range(300)]
    speak(root, batch("first", texts))
    listed = 0
    real = os.listdir

    def counting(*arguments: Any) -> list[str]:
        nonlocal listed
        listed += 1
        return real(*arguments)

    monkeypatch.setattr(os, "listdir", counting)
    assert reused(root, batch("second", ["new", *texts])) == {*texts}
    assert listed < 20


def test_of_two_lines_about_an_output_that_of_its_file_counts(tmp_path: Path) -> None:
    """Two workers have generated the segment, and the file is that of the one whose record is read first."""
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    record = Record(root, "first")
    record.refresh()
    with RecordWriter(record, "cpu.1@box") as writer:
        writer.append(replace(record.results[0], digest="0" * 32, mtime_ns=1))
    before = said(root)
    assert reused(root, batch("second", LINES)) == {*LINES}
    assert said(root) == before


def test_a_take_is_kept_of_a_file_that_another_batch_has_found_in_place(tmp_path: Path) -> None:
    root = tmp_path / "out"
    speak(root, batch("first", LINES))
    assert reused(root, batch("other", LINES, path="/home/other.json")) == {*LINES}
    speak(root, batch("second", ["new", *LINES[1:]]))
    assert reused(root, batch("third", LINES)) == {*LINES}


@pytest.mark.slow
@pytest.mark.parametrize("texts", EDITS.values(), ids=EDITS.keys())
def test_a_death_at_any_instant_loses_nothing_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    without_links(monkeypatch)
    wanted = {text.removesuffix(" again") for text in texts} & {*LINES}
    for deadly, root in deaths(tmp_path, monkeypatch, lambda root: reused(root, batch("second", texts))):
        assert reused(root, batch("second", texts)) == wanted, f"call {deadly}"
