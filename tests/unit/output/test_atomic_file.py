"""Files are written as a whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner.output.atomic_file import BUFFER_BYTES, FileAt, write_and_rename, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("sync", [True, False])
def test_pieces_become_one_file_in_a_folder_that_is_made(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a/b.txt"
    write_atomically(path, (letter.encode() for letter in "abc"), sync=sync)
    assert path.read_text() == "abc"
    write_atomically(path, [b"d" * BUFFER_BYTES, b"e"])
    assert path.read_bytes() == b"d" * BUFFER_BYTES + b"e"
    assert names(tmp_path) == ["b.txt"]


def test_an_error_between_the_pieces_leaves_the_earlier_file(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"x" * (BUFFER_BYTES + 1)
        raise ValueError("no more pieces")

    path = tmp_path / "b.txt"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="no more pieces"):
        write_atomically(path, breaks())
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["b.txt"]


def test_an_error_of_the_disk_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "b.txt"
    path.write_text("earlier")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, [b"later"])
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["b.txt"]


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "b-7.part").write_text("half")
    (tmp_path / "c-7.part").write_text("of another file")
    write_atomically(tmp_path / "b.txt", [b"whole"])
    assert names(tmp_path) == ["b.txt", "c-7.part"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "part").symlink_to("secret")
    with pytest.raises(OSError, match="symbolic links"):
        write_and_rename([b"data"], FileAt(tmp_path / "part"), FileAt(tmp_path / "b.txt"))
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "b.txt").exists()


def test_names_are_relative_to_open_folders(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "out").mkdir()
    parts, out = os.open(tmp_path / "parts", os.O_DIRECTORY), os.open(tmp_path / "out", os.O_DIRECTORY)
    status = write_and_rename([b"data"], FileAt("part", parts), FileAt("b.txt", out))
    os.close(parts)
    os.close(out)
    assert status.st_size == 4
    assert (tmp_path / "out/b.txt").read_bytes() == b"data"
    assert names(tmp_path / "parts") == []
