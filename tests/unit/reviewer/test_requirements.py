"""What is missing is a sentence before a reviewer starts."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from cloner.errors import EXIT_LOAD_FAILED, BadSetting, MissingPackage
from cloner.review import packages
from cloner.review.requirements import check_review
from cloner.settings import Settings
from tests.support.processes import environment
from tests.support.recognition import MODEL

HOW = "run `make setup`, or `pip install '.[review]'` and `pip install --no-deps -r ops/review.txt` in a checkout"


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Have some packages missing."""

    def find_unless_missing(name: str) -> ModuleSpec | None:
        return None if name in missing else find_spec(name)

    monkeypatch.setattr(packages, "find_spec", find_unless_missing)


def test_all_that_is_needed_is_here_and_none_of_it_is_imported() -> None:
    check = (
        "import sys\nfrom cloner.review.requirements import check_review\nfrom cloner.settings import load_settings\n"
    )
    check += "check_review(load_settings())\nprint({'torch', 'onnxruntime', 'faster_whisper'} & {*sys.modules})"
    env = environment(Settings(recogniser=MODEL))
    ran = subprocess.run(
        [sys.executable, "-c", check], env=env | {"PYTHONPATH": ":".join(sys.path)}, capture_output=True
    )
    assert (ran.stdout, ran.stderr) == (b"set()\n", b"")


def test_missing_packages_are_named_with_the_commands_that_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "resemblyzer", "speechmos", "faster_whisper")
    with pytest.raises(MissingPackage) as raised:
        check_review(Settings())
    assert (
        raised.value.message == f"packages that the review of takes needs are missing (resemblyzer, speechmos): {HOW}"
    )


def test_the_recognisers_packages_are_needed_only_with_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "faster_whisper")
    check_review(Settings())
    with pytest.raises(MissingPackage, match=r"are missing \(faster_whisper\)"):
        check_review(Settings(recogniser=MODEL))


def test_a_model_that_is_not_there_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="run `cloner recogniser pull small`"):
        check_review(Settings(recogniser=Path("small"), recogniser_cache=tmp_path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadSetting, match=r"folder has no config\.json, model\.bin, tokenizer\.json"):
        check_review(Settings(recogniser=tmp_path / "folder"))


@pytest.mark.parametrize(
    ("blocked", "status", "line"),
    [
        ("resemblyzer", EXIT_LOAD_FAILED, "packages that the review of takes needs are missing (resemblyzer)"),
        ("", 2, "CLONER_RECOGNISER='small': there is no such folder"),
    ],
)
def test_a_reviewer_that_is_started_by_hand_ends_with_that_sentence(
    tmp_path: Path, blocked: str, status: int, line: str
) -> None:
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += f"u.find_spec = lambda name, *rest: None if name == {blocked!r} else find(name, *rest)\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    recogniser = MODEL if blocked else Path("small")
    env = environment(Settings(redis_url="redis://127.0.0.1:1", recogniser=recogniser, recogniser_cache=tmp_path))
    paths = ":".join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "cloner.reviewer"]
    ran = subprocess.run(command, env=env | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert ran.returncode == status
    assert ran.stderr.splitlines()[1].startswith(line)
    assert len(ran.stderr.splitlines()) == 2
