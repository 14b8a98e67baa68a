"""Segments that are generated again as other takes: none is lost, and later batches take them for the segments'."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloner.batch import Redo
from cloner.errors import OutputsTaken, RecordFailed
from cloner.output import chosen_takes as module
from cloner.output.audio_files import OutputRoot
from cloner.output.chosen_takes import INDEX, chosen_takes
from cloner.output.journal import Journal, discard_journals
from cloner.output.own_folder import OwnFolder
from cloner.output.record import Record, RecordWriter, batch_folder
from cloner.output.record_lines import read_lines
from cloner.output.redo import REDO, check_redo, end_replacing, noted_takes, open_redo, replaced_digests
from cloner.output.reuse import reuse_finished
from cloner.output.search import find_outputs
from cloner.output.takes import Takes
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult
from cloner.protocol.rows import TakeRow
from cloner.worker.pending import split_by_record
from cloner.worker.result_writer import FileOwnership
from tests.support.edited_batches import (
    LINES,
    WORKER,
    Killed,
    batch,
    deaths,
    reused,
    seed_of,
    speak,
    without_links,
)

MIDDLE = "anna/0002.wav"


def redo_of(batch_id: str, segment: int = 1, seed: int | None = None, texts: list[str] = LINES) -> Manifest:
    """A batch that generates one segment again."""
    part = batch(batch_id, texts).part(lambda row: row.segment == segment)
    chunk = batch("x", ["x"]).chunks[0]
    return part.model_copy(update={"redo": Redo(seed=seed), "partial": True, "chunks": [chunk]})


def speak_takes(root: Path, manifest: Manifest, *, code: str = "", lines: bool = True) -> None:
    """Open the batch and generate its takes, as its collector and a worker do; with a `code`, they fail."""
    outputs, record = OutputRoot(root), Record(root, manifest.batch_id)
    open_redo(manifest, outputs)
    takes = {take.row.segment: take.row for take in noted_takes(outputs, manifest.batch_id)}
    message = manifest.message(manifest.chunks[0], takes)
    keys = ContentKeys(manifest.speech)
    record.refresh()
    _, pending = split_by_record(message, record, outputs, keys)
    journal = Journal(root, manifest.batch_id, 0, WORKER)
    with journal, RecordWriter(record, WORKER) as writer:
        journal.begin(outputs.part, 0)
        for segment in pending.values():
            written: dict[str, Any] = {"code": code}
            if not code:
                owned = FileOwnership(segment, record, journal, Takes(outputs, manifest.batch_id), overwrite=False)
                audio = np.random.default_rng(segment.seed).uniform(-0.5, 0.5, 300).astype(np.float32)
                written = asdict(outputs.write_audio(segment.output, audio, 44_100, owned))
            if lines:
                writer.append(
                    SegmentResult(
                        segment=segment.index,
                        speaker="anna",
                        output=segment.output,
                        key=segment.key,
                        assignment=0,
                        worker=WORKER,
                        take=segment.take,
                        seed=segment.seed,
                        **written,
                    )
                )
        if not lines:
            raise Killed


def next_in(root: Path, manifest: Manifest) -> dict[int, tuple[int, int]]:
    """Take and seed of each segment that a worker generates for a batch that is opened: without those it reuses."""
    outputs, record = OutputRoot(root), Record(root, manifest.batch_id)
    reuse_finished(manifest, outputs)
    record.refresh()
    message = manifest.message(manifest.chunks[0], chosen_takes(outputs, manifest))
    keys = ContentKeys(manifest.speech)
    _, pending = split_by_record(message, record, outputs, keys)
    return {index: (segment.take, segment.seed) for index, segment in pending.items()}


def close(root: Path, manifest: Manifest) -> None:
    """As the collector does it, of a batch whose segments have failed."""
    outputs, record = OutputRoot(root), Record(root, manifest.batch_id)
    record.refresh()
    failed = {index for index, line in record.results.items() if not line.generated} or {1}
    discard_journals(record, outputs, [MIDDLE], replaced_digests(outputs, manifest.batch_id, failed))
    end_replacing(outputs, manifest.batch_id, failed)


def all_takes(root: Path) -> set[bytes]:
    """The audio of all files, among the outputs and among the takes."""
    return {path.read_bytes() for path in root.rglob("*.wav")}


def line_of(root: Path, batch_id: str) -> SegmentResult:
    record = Record(root, batch_id)
    record.refresh()
    return record.results[1]


def test_a_take_has_its_segments_key_and_another_seed_each_time(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    first = line_of(tmp_path, "first")
    audio = [(tmp_path / MIDDLE).read_bytes()]
    for number in (2, 3):
        speak_takes(tmp_path, redo_of(f"redo{number}"))
        audio.append((tmp_path / MIDDLE).read_bytes())
        line = line_of(tmp_path, f"redo{number}")
        assert (line.key, line.output, line.take) == (first.key, MIDDLE, number)
        kept = [path.read_bytes() for path in (tmp_path / f".cloner/redo{number}/takes").iterdir()]
        assert kept == [audio[-2]]
    assert len(set(audio)) == 3
    assert len({line_of(tmp_path, name).seed for name in ("first", "redo2", "redo3")}) == 3
    assert sorted(path.name for path in (tmp_path / "anna").iterdir()) == [f"000{n}.wav" for n in range(1, 5)]


def test_the_same_seed_is_the_same_take(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    audio = set()
    for name in ("a", "b"):
        speak_takes(tmp_path, redo_of(name, seed=7))
        audio.add((tmp_path / MIDDLE).read_bytes())
    assert len(audio) == 1
    assert line_of(tmp_path, "b").take == 3


def test_later_batches_take_it_for_the_segments_audio_and_move_it(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    speak_takes(tmp_path, redo_of("redo"))
    redone = (tmp_path / MIDDLE).read_bytes()
    assert reused(tmp_path, batch("again", LINES)) == {*LINES}
    assert line_of(tmp_path, "again").take == 2
    assert (tmp_path / MIDDLE).read_bytes() == redone
    # An edit above it moves it, and an undone edit brings it back.
    assert reused(tmp_path, batch("edited", ["zero", *LINES])) == {*LINES}
    assert (tmp_path / "anna/0003.wav").read_bytes() == redone
    speak(tmp_path, batch("replaced", ["one", "other", "three", "four"]))
    assert reused(tmp_path, batch("undone", LINES)) == {*LINES}
    assert (tmp_path / MIDDLE).read_bytes() == redone


def test_a_take_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    before = all_takes(tmp_path)
    failing = redo_of("failing")
    speak_takes(tmp_path, failing, code="cut_off")
    close(tmp_path, failing)
    assert all_takes(tmp_path) == before
    assert reused(tmp_path, batch("again", LINES)) == {*LINES}
    # The number of the failed take is not used again: its seed would be cut again.
    speak_takes(tmp_path, redo_of("redo"))
    assert line_of(tmp_path, "redo").take == 3


def test_a_segment_that_has_failed_before_is_generated_with_another_seed(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", ["one"]))
    speak_takes(tmp_path, redo_of("redo"))
    line = line_of(tmp_path, "redo")
    assert (line.take, line.generated) == (2, True)
    assert not (tmp_path / ".cloner/redo/takes").exists()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("next_id", ["redo", "second"], ids=["the batch goes on", "another redo follows"])
def test_a_death_at_any_instant_loses_no_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_id: str, links: bool
) -> None:
    if not links:
        without_links(monkeypatch)
    whole = tmp_path / "whole"
    speak(whole, batch("first", LINES))
    first = (whole / MIDDLE).read_bytes()
    deadly = 0
    for deadly, root in deaths(tmp_path, monkeypatch, lambda root: speak_takes(root, redo_of("redo"))):
        died_with = all_takes(root)
        assert first in died_with, f"call {deadly}"
        speak_takes(root, redo_of(next_id))
        assert died_with <= all_takes(root), f"call {deadly}"
        line = line_of(root, next_id)
        assert OutputRoot(root).has_result(line), f"call {deadly}"
        assert (root / MIDDLE).read_bytes() != first
        assert reused(root, batch("again", LINES)) == {*LINES}, f"call {deadly}"
    assert deadly > 5


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file of others": (
        lambda root: (root / MIDDLE).write_bytes(b"of another program"),
        "1 of the outputs: anna/0002.wav: this batch has written each, and something else has changed",
    ),
    "a newer version": (
        lambda root: speak(root, batch("newer", ["one", "other", "three", "four"])),
        "1 of the outputs: anna/0002.wav: another version of the batch has since given each another text",
    ),
    "a newer version that has moved it": (
        lambda root: speak(root, batch("newer", ["two"])),
        "1 of the outputs: anna/0002.wav: another version .* or its audio another name",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_is_not_the_segments_any_more_is_not_replaced(
    tmp_path: Path, change: Callable[[Path], object], sentence: str
) -> None:
    speak(tmp_path, batch("first", LINES))
    change(tmp_path)
    before = all_takes(tmp_path)
    for refuse in (check_redo, open_redo):
        with pytest.raises(OutputsTaken, match=sentence):
            refuse(redo_of("redo"), OutputRoot(tmp_path))
    assert all_takes(tmp_path) == before
    assert not batch_folder(tmp_path, "redo").files("*")


def test_a_file_that_appears_later_is_not_replaced(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    part, outputs = redo_of("redo"), OutputRoot(tmp_path)
    open_redo(part, outputs)
    (tmp_path / MIDDLE).write_bytes(b"of another program")
    with pytest.raises(Exception, match=r"anna/0002.wav is there, and not as this batch has written it"):
        speak_takes(tmp_path, part)
    assert (tmp_path / MIDDLE).read_bytes() == b"of another program"


def test_takes_that_are_damaged_are_a_sentence(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    open_redo(redo_of("redo"), OutputRoot(tmp_path))
    (tmp_path / ".cloner/redo" / REDO).write_text("[[1]]\n")
    with pytest.raises(RecordFailed, match=r"redo.ndjson is damaged: redo the segments again"):
        list(noted_takes(OutputRoot(tmp_path), "redo"))


def test_a_replaced_take_is_not_found_again(tmp_path: Path) -> None:
    """What a user has rejected does not come back when the newer take is lost."""
    speak(tmp_path, batch("first", LINES))
    speak_takes(tmp_path, redo_of("redo"))
    (tmp_path / MIDDLE).unlink()
    keys = ContentKeys(batch("x", LINES).speech)
    row = batch("x", LINES).speakers[0].segments[1]
    wanted = {MIDDLE: keys.of(batch("x", LINES).speakers[0], row)}
    assert list(find_outputs(OutputRoot(tmp_path), wanted, None).done()) == []


def in_format(manifest: Manifest, suffix: str) -> Manifest:
    """The batch with outputs of another format."""
    (speaker,) = manifest.speakers
    rows = [row._replace(output=row.output.replace(".wav", suffix)) for row in speaker.segments]
    return manifest.model_copy(update={"speakers": [speaker.model_copy(update={"segments": rows})]})


def test_a_lost_segment_is_generated_as_its_last_take(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    for number in (2, 3):
        speak_takes(tmp_path, redo_of(f"redo{number}"))
    speak_takes(tmp_path, redo_of("failing"), code="cut_off")
    last = line_of(tmp_path, "redo3")
    (tmp_path / MIDDLE).unlink()
    (tmp_path / "anna/0003.wav").unlink()
    assert next_in(tmp_path, batch("again", LINES)) == {1: (3, last.seed), 2: (1, seed_of("three"))}
    edited = ["one", "other", "three", "four"]
    assert next_in(tmp_path, batch("edited", edited))[1] == (1, seed_of("other"))


def test_another_format_is_generated_from_the_last_takes(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", LINES))
    speak_takes(tmp_path, redo_of("redo"))
    last = line_of(tmp_path, "redo")
    found = next_in(tmp_path, in_format(batch("again", LINES), ".flac"))
    assert found == {n: (1, seed_of(text)) for n, text in enumerate(LINES)} | {1: (2, last.seed)}


def test_a_record_that_has_not_changed_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def lines(folder: OwnFolder, name: str) -> Iterator[tuple[bytes, str, bytes]]:
        read.append(folder.path.name)
        yield from read_lines(folder, name)

    def chosen() -> tuple[dict[int, TakeRow], list[str]]:
        read.clear()
        return chosen_takes(OutputRoot(tmp_path), batch("again", LINES)), sorted(set(read))

    monkeypatch.setattr(module, "read_lines", lines)
    speak(tmp_path, batch("first", LINES))
    assert chosen() == ({}, ["first"])
    speak_takes(tmp_path, redo_of("redo"))
    second = {1: (1, 2, line_of(tmp_path, "redo").seed, "")}
    assert chosen() == (second, ["redo"])
    assert chosen() == (second, [])
    # What is no index is written again; so is one that has other files.
    (tmp_path / ".cloner/first" / INDEX).write_text("{")
    (tmp_path / ".cloner/redo" / INDEX).write_text('{"files": {}, "takes": {}}')
    assert chosen() == (second, ["first", "redo"])
    assert chosen() == (second, [])
    with RecordWriter(Record(tmp_path, "redo"), WORKER) as writer:
        writer.append(replace(line_of(tmp_path, "redo"), take=3, seed=7))
    assert chosen() == ({1: (1, 3, 7, "")}, ["redo"])


def test_a_record_that_could_not_be_read_is_read_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: OwnFolder, name: str) -> Iterator[tuple[bytes, str, bytes]]:
        yield from islice(read_lines(folder, name), 0)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    speak(tmp_path, batch("first", LINES))
    speak_takes(tmp_path, redo_of("redo"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_lines", broken)
        assert chosen_takes(OutputRoot(tmp_path), batch("again", LINES)) == {}
    assert chosen_takes(OutputRoot(tmp_path), batch("again", LINES)) == {1: (1, 2, line_of(tmp_path, "redo").seed, "")}


def test_a_segment_without_another_take_has_none(tmp_path: Path) -> None:
    assert chosen_takes(OutputRoot(tmp_path), batch("again", LINES)) == {}
    speak(tmp_path, batch("first", LINES))
    speak_takes(tmp_path, redo_of("failing"), code="cut_off")
    record = tmp_path / f".cloner/first/{WORKER}.jsonl"
    written = record.read_text()
    for fields in ("", ',"seed":0,"take":1'):  # as version 0.1 wrote it, and as another version may
        other = written.replace(',"take":1,"seed":0', fields)
        assert other != written
        record.write_text(other)
        assert chosen_takes(OutputRoot(tmp_path), batch("again", LINES)) == {}
