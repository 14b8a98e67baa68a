"""The folder of compiled kernels: made for its user alone, refused if anybody else could put code there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloner.engine.kernel_trial.cache import KernelCache
from cloner.errors import LoadFailed


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/somewhere/else")


def refusal(folder: Path, outputs: Path) -> str:
    with pytest.raises(LoadFailed) as error:
        KernelCache(folder, outputs).open()
    assert os.environ["TRITON_CACHE_DIR"] == "/somewhere/else"
    assert error.value.message.endswith("set CLONER_KERNEL_CACHE to a folder that this user alone can write to")
    return error.value.message


def test_it_is_made_for_this_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = KernelCache(tmp_path / "cache/cloner/kernels", tmp_path / "out").open()
    finally:
        os.umask(before)
    assert folder == tmp_path / "cache/cloner/kernels"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Path(os.environ["TRITON_CACHE_DIR"]).parent == folder


def test_it_is_below_the_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert KernelCache(Path("~/kernels"), Path("out")).open() == tmp_path / "kernels"


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o720])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels").chmod(mode)
    assert f"{tmp_path}/kernels can be written by other users: `chmod 700" in refusal(tmp_path / "kernels", Path("out"))


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert f"belongs to user {tmp_path.stat().st_uid}, and" in refusal(tmp_path, Path("out"))


@pytest.mark.parametrize("inside", ["", "kernels", "deep/er/kernels"])
def test_a_folder_in_the_output_folder_is_refused_and_not_made(tmp_path: Path, inside: str) -> None:
    outputs = tmp_path / "out"
    assert f"is under the output folder {outputs}" in refusal(outputs / inside, outputs)
    assert not outputs.exists()


def test_a_link_into_the_output_folder_is_followed_and_refused(tmp_path: Path) -> None:
    (tmp_path / "out/kernels").mkdir(parents=True)
    (tmp_path / "link").symlink_to("out/kernels")
    assert "is under the output folder" in refusal(tmp_path / "link", tmp_path / "out")


def test_what_is_no_folder_or_has_no_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used (File exists)" in refusal(tmp_path / "file", Path("out"))
    assert "cannot be used (Not a directory)" in refusal(tmp_path / "file/kernels", Path("out"))
    assert "cannot be used (Could not determine home directory.)" in refusal(
        Path("~nobody-of-this-name/k"), Path("out")
    )


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _folder, _mode: False)
    assert "cannot be written by this worker" in refusal(tmp_path, Path("out"))


def test_a_folder_from_which_nothing_can_be_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _folder: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert "is on a file system that is mounted noexec" in refusal(tmp_path, Path("out"))


def test_triton_takes_it(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from cloner.engine.kernel_trial.cache import KernelCache\n"
        f"KernelCache(Path({str(tmp_path)!r}), Path('out')).open()\n"
        "import triton; print(triton.knobs.cache.dir)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(tmp_path / "compiled")
