"""Files of our own: written as a whole or not at all, and reached without following a link."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cloner.errors import RecordFailed
from cloner.output.atomic_file import BUFFER_BYTES
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import Journal
from cloner.output.lock import output_lock
from cloner.output.own_folder import OwnFolder
from cloner.output.record import Record, RecordWriter
from tests.support.records import segment_result


@pytest.fixture
def folder(tmp_path: Path) -> OwnFolder:
    folder = OwnFolder(tmp_path, "b")
    folder.path.mkdir(parents=True)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("sync", [True, False])
def test_pieces_become_one_file_in_a_folder_that_is_made(tmp_path: Path, sync: bool) -> None:
    folder = OwnFolder(tmp_path / "a", "x", "y")
    path = tmp_path / "a/.cloner/x/y/b.txt"
    folder.write("b.txt", (letter.encode() for letter in "abc"), sync=sync)
    assert path.read_text() == "abc"
    folder.write("b.txt", [b"d" * BUFFER_BYTES, b"e"])
    assert path.read_bytes() == b"d" * BUFFER_BYTES + b"e"
    assert names(tmp_path) == ["b.txt"]


def test_an_error_between_the_pieces_leaves_the_earlier_file(tmp_path: Path, folder: OwnFolder) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"x" * (BUFFER_BYTES + 1)
        raise ValueError("no more pieces")

    path = folder.path / "b.txt"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="no more pieces"):
        folder.write("b.txt", breaks())
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["b.txt"]


def test_an_error_of_the_disk_leaves_the_earlier_file(
    tmp_path: Path, folder: OwnFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = folder.path / "b.txt"
    path.write_text("earlier")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("b.txt", [b"later"])
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["b.txt"]


def test_temporary_files_of_killed_processes_are_removed(folder: OwnFolder) -> None:
    left, others = folder.path / "b.txt-7f.part", folder.path / "b.csv-7f.part"
    for path in (left, others):
        path.write_text("half")
        os.utime(path, (0, 0))
    folder.write("b.txt", [b"whole"])
    assert sorted(path.name for path in folder.path.iterdir()) == ["b.csv-7f.part", "b.txt"]


def test_two_processes_that_write_a_file_at_the_same_time_do_not_mix_theirs(folder: OwnFolder) -> None:
    def first() -> Iterator[bytes]:
        yield b"the first's"
        folder.write("b.txt", [b"the other's"])
        assert folder.read("b.txt") == b"the other's"
        yield b", whole"

    folder.write("b.txt", first())
    assert folder.read("b.txt") == b"the first's, whole"
    assert [path.name for path in folder.path.iterdir()] == ["b.txt"]


def write_record(root: Path) -> None:
    with RecordWriter(Record(root, "b"), "w") as writer:
        writer.append(segment_result(0))


def write_journal(root: Path) -> None:
    Journal(root, "b", 0, "w").begin("part-" + "0" * 32, 0)


def write_result(root: Path) -> None:
    OwnFolder(root, "b").write("result.json", [b"{}"])


def write_codes(root: Path) -> None:
    OutputRoot(root).write_codes(OwnFolder(root, "references", "none"), "a.npy", b"codes")


def hold_lock(root: Path) -> None:
    with output_lock(root, "main"):
        pass


WRITERS: list[tuple[Callable[[Path], None], str]] = [
    (write_record, "b/w.jsonl"),
    (write_journal, "b/0.w.journal"),
    (write_result, "b/result.json"),
    (write_codes, "references/none/a.npy"),
    (hold_lock, "fleets/main.lock"),
]


@pytest.mark.parametrize(("write", "name"), WRITERS)
@pytest.mark.parametrize("depth", ["the file", "its folder", "all of it"])
def test_no_link_is_followed_by_what_writes(
    tmp_path: Path, write: Callable[[Path], None], name: str, depth: str
) -> None:
    outside, path = tmp_path / "outside", tmp_path / "root" / ".cloner" / name
    outside.mkdir()
    link = {"the file": path, "its folder": path.parent, "all of it": tmp_path / "root" / ".cloner"}[depth]
    link.parent.mkdir(parents=True)
    if depth == "the file":
        (outside / "secret").write_text("secret")
        link.symlink_to(outside / "secret")
    else:
        link.symlink_to(outside)
    with suppress(OSError, RecordFailed):
        write(tmp_path / "root")
    assert names(outside) == (["secret"] if depth == "the file" else [])
    if depth == "the file":
        assert (outside / "secret").read_text() == "secret"


def test_no_link_is_followed_by_what_reads(tmp_path: Path) -> None:
    write_record(tmp_path / "elsewhere")
    record = tmp_path / "root/.cloner/b/w.jsonl"
    record.parent.mkdir(parents=True)
    record.symlink_to(tmp_path / "elsewhere/.cloner/b/w.jsonl")
    with pytest.raises(RecordFailed, match=r"a link is not followed here: 'w\.jsonl'"):
        Record(tmp_path / "root", "b").refresh()
    record.unlink()
    record.parent.rmdir()
    record.parent.symlink_to(tmp_path / "elsewhere/.cloner/b")
    with pytest.raises(RecordFailed, match="a link is not followed here: 'b'"):
        Record(tmp_path / "root", "b").refresh()
    assert OwnFolder(tmp_path / "root").inner_folders() == []


def test_a_pipe_in_the_place_of_a_file_does_not_block(folder: OwnFolder) -> None:
    os.mkfifo(folder.path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        folder.read("pipe")


def test_files_are_found_by_their_names(folder: OwnFolder) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.journal"):
        (folder.path / name).write_text("four")
    assert {name: status.st_size for name, status in folder.files("*.jsonl").items()} == {"a.jsonl": 4, "b.jsonl": 4}
    folder.remove("a.jsonl")
    folder.remove("a.jsonl")
    assert list(folder.files("*")) == ["b.jsonl", "c.journal"]


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path / "nowhere", "b")
    assert folder.files("*") == {}
    folder.remove("a")
    assert folder.inner_folders() == []
    with pytest.raises(FileNotFoundError):
        folder.read("a")
    assert not (tmp_path / "nowhere").exists()
