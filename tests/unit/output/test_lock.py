"""One fleet at a time under an output root."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloner.errors import OutputsTaken
from cloner.output.lock import output_lock

HOLD = "import sys; from pathlib import Path; from cloner.output.lock import output_lock\n"
HOLD += "with output_lock(Path(sys.argv[1]), sys.argv[2]): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of another fleet, which holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), "other"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def lock_files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".cloner" / "fleets").iterdir())


def test_another_fleet_is_refused_with_who_is_there(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(OutputsTaken) as refused, output_lock(tmp_path, "mine"):
        pytest.fail("two fleets in one folder")
    assert refused.value.message.startswith(f"fleet other (process {other.pid} on ")
    assert f" writes under {tmp_path}: wait until it has ended, or take another folder" in refused.value.message
    assert lock_files(tmp_path) == ["other.lock"]


def test_the_same_fleet_is_welcome(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with output_lock(tmp_path, "other"):
        pass
    # It left, and the other process still holds the folder.
    with pytest.raises(OutputsTaken, match=rf"fleet other \(process {other.pid} on "), output_lock(tmp_path, "mine"):
        pytest.fail("two fleets in one folder")


def test_a_killed_fleet_holds_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with output_lock(tmp_path, "mine"):
        assert lock_files(tmp_path) == ["mine.lock", "other.lock"]


def test_nothing_is_left_of_who_has_gone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(output_lock(tmp_path, "one"))
        stack.enter_context(output_lock(tmp_path, "one"))
    assert lock_files(tmp_path) == []


def test_a_folder_that_cannot_be_locked_is_warned_of_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsupported(_file: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with output_lock(tmp_path, "mine"):
        pass
    (tmp_path / "file").write_text("")
    with output_lock(tmp_path / "file", "mine"):
        pass
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"{tmp_path}/.cloner/fleets cannot be locked (")
    assert said[0].endswith("): see to it that no other fleet writes there")
