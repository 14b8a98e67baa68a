"""The journal of a chunk: what was in hand when a process died."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cloner.errors import EngineBroken, RecordFailed
from cloner.output import journal
from cloner.output.journal import Journal, Run

PART = "part-" + "0" * 32


def make(folder: Path, worker: str = "cpu.0@box", chunk: int = 3) -> Journal:
    return Journal(folder, "b", chunk, worker)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.hand"))


def leave(folder: Path, error: BaseException | None, worker: str = "cpu.0@box") -> None:
    """A run that ends by this."""
    with suppress(EngineBroken, RecordFailed, SystemExit), make(folder, worker) as hand:
        hand.begin(PART, 5)
        hand.started(7, alone=False)
        if error:
            raise error


def test_a_chunk_that_was_never_begun_leaves_nothing(tmp_path: Path) -> None:
    with make(tmp_path) as hand:
        assert hand.runs == []
    assert list(tmp_path.rglob("*")) == []


def test_what_a_killed_process_had_in_hand_is_known(tmp_path: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from cloner.output.journal import Journal\n"
        f"hand = Journal(Path({str(tmp_path)!r}), 'b', 3, 'cpu.0@box')\n"
        f"hand.begin({PART!r}, 5); hand.started(7, alone=False); hand.started(9, alone=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert make(tmp_path, "cpu.1@other").dead == [Run(1, "cpu.0@box", PART, 5, {7: False, 9: True}, ended=False)]
    assert make(tmp_path, chunk=4).dead == []
    assert make(tmp_path, chunk=33).dead == []


def test_a_finished_chunk_needs_no_journal_on_whatever_worker(tmp_path: Path) -> None:
    leave(tmp_path, EngineBroken(), worker="cpu.1@box")
    other = make(tmp_path, chunk=33)
    other.begin(PART, 0)
    leave(tmp_path, None)
    assert files(tmp_path) == ["33.cpu.0@box.hand"]


@pytest.mark.parametrize(
    ("error", "dead"),
    [(EngineBroken(), True), (RecordFailed(), False), (SystemExit(), False)],
    ids=["a broken engine", "another error", "told to stop"],
)
def test_only_what_breaks_the_engine_leaves_suspects(tmp_path: Path, error: BaseException, dead: bool) -> None:
    leave(tmp_path, error)
    (run,) = make(tmp_path).runs
    assert run.ended is not dead
    assert run.started == {7: False}


def test_what_is_taken_in_hand_after_a_stop_is_nobodys_fault(tmp_path: Path) -> None:
    with suppress(EngineBroken), make(tmp_path) as hand:
        hand.begin(PART, 5)
        hand.started(7, alone=False)
        hand.end()
        hand.started(8, alone=False)
        raise EngineBroken
    hand.end()
    assert make(tmp_path).runs == [Run(1, "cpu.0@box", PART, 5, {7: False}, ended=True)]


def test_runs_are_numbered_over_all_workers(tmp_path: Path) -> None:
    for worker in ("z", "a", "m"):
        leave(tmp_path, EngineBroken(), worker)
    assert [run.number for run in make(tmp_path).runs] == [1, 2, 3]
    assert files(tmp_path) == ["3.a.hand", "3.m.hand", "3.z.hand"]


def test_a_torn_line_is_passed_over_and_ended(tmp_path: Path) -> None:
    leave(tmp_path, EngineBroken())
    (path,) = tmp_path.rglob("*.hand")
    with path.open("ab") as file:
        file.write(b'{"run":1,"segm')
    leave(tmp_path, SystemExit())
    assert [(run.number, run.ended) for run in make(tmp_path).runs] == [(1, False), (2, True)]


def test_a_name_that_is_no_parts_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / ".cloner/b"
    folder.mkdir(parents=True)
    (folder / "3.x.hand").write_text('{"run":1,"part":"../../precious"}\n')
    assert make(tmp_path).runs == []


def test_a_journal_that_cannot_be_kept_is_said_once_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_file: int, _line: bytes) -> None:
        raise OSError(28, "No space left on device")

    with make(tmp_path) as hand:
        hand.begin(PART, 0)
        monkeypatch.setattr(journal, "append_line", full)
        for segment in range(3):
            hand.started(segment, alone=False)
    assert capsys.readouterr().err.count("cannot be kept, so a crash may not be put down to its cause") == 1


def test_a_folder_that_cannot_be_written_is_an_error_of_the_record(tmp_path: Path) -> None:
    (tmp_path / ".cloner").write_text("in the way")
    with pytest.raises(RecordFailed, match="cannot be kept"):
        make(tmp_path).begin(PART, 0)
