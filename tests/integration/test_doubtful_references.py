"""References that can be used, but may be bad ones: a warning, or with `--strict` an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner import Client
from cloner.settings import Settings
from tests.support.bad_inputs import Refuse, RunCommand
from tests.support.batch_files import save_recording

SHORT = "reference 'anna.wav' of speaker 'anna': it lasts 1.0 s, and 3 s is the least for a voice; give 10 to 30 s"


@pytest.fixture
def doubtful(batch_folder: Path) -> str:
    """A batch of a good speaker and one whose recording lasts a second."""
    anna = {"id": "anna", "reference": {"audio": "anna.wav", "text": "I am Anna."}, "texts": ["One."]}
    ben = {"id": "ben", "reference": {"codes": "refs/0.npy", "text": "I am Ben."}, "texts": ["One."]}
    (batch_folder / "d.json").write_text(json.dumps({"speakers": [anna, ben]}))
    return "d.json"


def test_strict_refuses_them(doubtful: str, refuse: Refuse) -> None:
    refuse(doubtful, SHORT, "--strict")


def test_else_they_are_warnings(doubtful: str, idle_fleet: Settings, run_command: RunCommand) -> None:
    for command in (["submit", doubtful], ["plan", doubtful, "--out", "out", "--engine", "fake"]):
        status, _, stderr = run_command(*command)
        assert status == 0
        assert f"d.json: {SHORT}" in stderr
        assert "'ben'" not in stderr


def test_only_the_speakers_are_judged_that_are_spoken(
    doubtful: str, idle_fleet: Settings, run_command: RunCommand
) -> None:
    status, _, stderr = run_command("submit", doubtful, "--strict", "--speaker", "ben")
    assert (status, stderr) == (0, "")


def test_a_client_in_python_logs_them_once(
    doubtful: str, idle_fleet: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Client().submit(doubtful).id
    assert capsys.readouterr().err.count("it lasts 1.0 s") == 1


def test_many_are_the_first_twenty_and_a_count(
    batch_folder: Path, idle_fleet: Settings, run_command: RunCommand
) -> None:
    for number in range(30):
        save_recording(batch_folder / f"voices/{number}/a.wav", "I am one of them.")
    (batch_folder / "d.csv").write_text("speaker,text\n" + "".join(f"{number},One.\n" for number in range(30)))
    status, _, stderr = run_command("submit", "d.csv", "--references", "voices")
    assert status == 0
    *warnings, last = stderr.splitlines()
    assert len(warnings) == 20
    assert last.endswith("more warnings")
