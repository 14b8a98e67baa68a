"""The examples run by the commands that their README gives."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from cloner.events import Event
from tests.support.log_lines import find_lines
from tests.support.processes import run_cloner

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "ops/examples"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^cloner (run .*)$", README, re.MULTILINE)
OUTPUTS = {
    "museum.csv": {"anna/0001.wav", "anna/0002.wav", "ben/0001.wav"},
    "lines.txt": {"anna/0001.wav", "anna/0002.wav", "anna/0003.wav"},
    "story.yaml": {"story/title.wav", "ben/0002.wav", "ben/0003.wav", "anna/0001.wav"},
    "flat.json": {"doors/0.wav", "doors/1.wav"},
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples and their voices."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(EXAMPLES, folder / "ops/examples", ignore=shutil.ignore_patterns("voices"))
    (making,) = re.findall(r"^python (-m \S+)", README, re.MULTILINE)
    # The copy has no `ops/scripts`; a checkout has.
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1])}
    subprocess.run([sys.executable, *making.split()], cwd=folder, env=environment, check=True)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_generates_what_it_names(checkout: Path, command: str) -> None:
    arguments = shlex.split(command)
    ran = run_cloner(*arguments, "--engine", "fake", cwd=checkout)
    assert ran.returncode == 0, ran.stderr
    assert find_lines(ran.stderr.splitlines(), Event.BATCH_WARNING, source=arguments[1]) == []
    out, results = checkout / arguments[-1], json.loads(ran.stdout)["results"]
    assert set(results.values()) == OUTPUTS[Path(arguments[1]).name]
    assert all(soundfile.info(out / output).duration > 0 for output in results.values())


def test_the_readme_has_a_command_and_a_row_for_each_example() -> None:
    assert {Path(shlex.split(command)[1]).name for command in COMMANDS} == set(OUTPUTS)
    assert set(re.findall(r"^\| \[(.*?)\]", README, re.MULTILINE)) == set(OUTPUTS)
