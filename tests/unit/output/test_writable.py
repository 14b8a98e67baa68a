"""An output root is tried before anything is loaded."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from cloner.errors import UsageError
from cloner.output.own_folder import OwnFolder
from cloner.output.writable import require_writable, seems_writable


def test_a_folder_that_can_be_written_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    require_writable(tmp_path / "new/out")
    assert [path.name for path in (tmp_path / "new/out").rglob("*")] == [".cloner"]


def test_what_a_killed_process_has_left_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".cloner").mkdir()
    (tmp_path / ".cloner/probe").touch()
    require_writable(tmp_path)
    assert list((tmp_path / ".cloner").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/.cloner").symlink_to(tmp_path)
    for folder, reason in (
        (Path("/proc/out"), "No such file or directory"),
        (tmp_path / "file", "File exists"),
        (tmp_path / "linked", "a link is not followed here"),
    ):
        with pytest.raises(UsageError) as refused:
            require_writable(folder)
        assert refused.value.message == (
            f"the output folder {folder} cannot be written ({reason}): take another folder (--out of a run,"
            " CLONER_OUT_DIR of a fleet)"
        )


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, f"give it to user {os.geteuid()}, or take another folder"),
        (errno.EROFS, "mount it for writing, or take another folder"),
    ],
)
def test_what_can_be_done_follows_from_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(_folder: OwnFolder, _name: str, _flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(OwnFolder, "open_file", refuse)
    with pytest.raises(UsageError, match=re.escape(f"({os.strerror(number)}): {advice} (--out")):
        require_writable(tmp_path)


def test_whether_a_folder_can_be_written_is_asked_of_the_nearest_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {tmp_path}
    monkeypatch.setattr(os, "access", lambda path, _: path not in refused)
    assert not seems_writable(tmp_path / "new/out")
    (tmp_path / "new").mkdir()
    assert seems_writable(tmp_path / "new/out")
    assert not seems_writable(tmp_path)


def test_a_full_disk_is_waited_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_folder: OwnFolder, _name: str, _flags: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(OwnFolder, "open_file", full)
    require_writable(tmp_path)
