"""Files are written as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner.output.atomic_file import FileAt, write_and_rename


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


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
