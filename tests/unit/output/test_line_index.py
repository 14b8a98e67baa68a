"""Indexes of the records of closed batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner.output import record_lines
from cloner.output.audio_files import OutputRoot
from cloner.output.line_index import INDEX
from cloner.output.own_folder import OwnFolder
from cloner.output.record import RESULT, batch_folder
from cloner.output.search import find_outputs, last_takes, leftover_files
from cloner.protocol.messages import Manifest
from tests.unit.output.test_reuse import batch, reused, speak


def other(number: int, texts: list[str]) -> Manifest:
    """A batch of another file than `batch`, with outputs of its own."""
    found = batch(f"other{number}", texts)
    (speaker,) = found.speakers
    rows = [row._replace(output=f"other{number}/{row.segment}.wav") for row in speaker.segments]
    speaker = speaker.model_copy(update={"segments": rows})
    return found.model_copy(update={"speakers": [speaker], "path": f"/home/other{number}.json"})


def close(root: Path, manifest: Manifest) -> None:
    speak(root, manifest)
    batch_folder(root, manifest.batch_id).write(RESULT, [b"{}"])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The batches whose records were read, each time."""
    found: list[str] = []
    read_lines = record_lines.read_lines

    def noted(folder: OwnFolder, name: str, *, failed: bool = False) -> Iterator[tuple[bytes, str, bytes]]:
        found.append(folder.path.name)
        return read_lines(folder, name, failed=failed)

    monkeypatch.setattr(record_lines, "read_lines", noted)
    return found


def test_the_record_of_a_closed_batch_is_read_once_for_all_that_want_nothing_of_it(
    tmp_path: Path, read: list[str]
) -> None:
    for number in range(3):
        close(tmp_path, other(number, [f"text {number}"]))
    assert reused(tmp_path, batch("first", ["a"])) == []
    assert sorted(read) == ["other0", "other1", "other2"]
    read.clear()
    assert reused(tmp_path, batch("second", ["b"])) == []
    assert last_takes(OutputRoot(tmp_path), ["no such key"], failed=True) == {}
    assert set(read) <= {"first", "second"}  # which are open


def test_what_a_closed_batch_has_is_found_by_name_and_by_key(tmp_path: Path, read: list[str]) -> None:
    close(tmp_path, other(0, ["x", "y"]))
    close(tmp_path, batch("closed", ["a", "b", "c"]))
    assert reused(tmp_path, batch("again", ["a", "B", "c"])) == [0, 2]
    moved = batch("moved", ["a", "b", "c"])
    (speaker,) = moved.speakers
    rows = [row._replace(output=f"moved/{row.segment}.wav") for row in speaker.segments]
    moved = moved.model_copy(update={"speakers": [speaker.model_copy(update={"segments": rows})]})
    close(tmp_path, batch("again", ["a", "B", "c"]))
    read.clear()
    assert reused(tmp_path, moved) == [0, 1, 2]  # the second lies among the takes
    assert "closed" in read
    assert "other0" not in read


@pytest.mark.parametrize("keeps", [True, False])
def test_only_who_is_about_to_write_there_keeps_an_index(tmp_path: Path, keeps: bool) -> None:
    close(tmp_path, other(0, ["x"]))
    if keeps:
        reused(tmp_path, batch("again", ["a"]))
    else:
        find_outputs(OutputRoot(tmp_path), {"a.wav": "k"}, None)
    assert (batch_folder(tmp_path, "other0").path / INDEX).exists() is keeps


def test_a_batch_that_is_not_closed_gets_no_index(tmp_path: Path, read: list[str]) -> None:
    speak(tmp_path, other(0, ["x"]))
    for name in ("first", "second"):
        reused(tmp_path, batch(name, ["a"]))
    assert not (batch_folder(tmp_path, "other0").path / INDEX).exists()
    assert read.count("other0") >= 2


def test_a_record_that_has_grown_is_indexed_anew(tmp_path: Path) -> None:
    whole = other(0, ["x", "y"])
    speak(tmp_path, whole, only=[0])
    batch_folder(tmp_path, "other0").write(RESULT, [b"{}"])
    reused(tmp_path, batch("first", ["a"]))
    speak(tmp_path, whole, only=[1])
    wanted = {"other0/1.wav": "k"}
    assert find_outputs(OutputRoot(tmp_path), wanted, None).changed == {"other0/1.wav"}


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"junk", None])
def test_an_index_that_is_damaged_hides_nothing(tmp_path: Path, damage: bytes | None) -> None:
    close(tmp_path, other(0, ["x", "y"]))
    reused(tmp_path, batch("first", ["a"]))
    path = batch_folder(tmp_path, "other0").path / INDEX
    whole = path.read_bytes()
    assert len(whole.partition(b"\n")[2]) == 4 * 8
    path.write_bytes(whole[:-8] + bytes(8) if damage is None else damage)
    assert find_outputs(OutputRoot(tmp_path), {"other0/1.wav": "k"}, None).changed == {"other0/1.wav"}


def test_an_index_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    close(tmp_path, other(0, ["x"]))
    (batch_folder(tmp_path, "other0").path / INDEX).mkdir()
    assert reused(tmp_path, batch("first", ["a"])) == []


def test_what_is_left_over_is_looked_for_in_the_batchs_own_versions_alone(tmp_path: Path, read: list[str]) -> None:
    close(tmp_path, other(0, ["x"]))
    close(tmp_path, batch("first", ["a", "b"]))
    assert leftover_files(OutputRoot(tmp_path), batch("second", ["a"])) == ['1 "ü".wav']
    assert read == ["first"]
