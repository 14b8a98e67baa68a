from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cloner.process import PARENT_PID

SCRIPT = """
import ctypes, os
from cloner.process import die_with_parent
die_with_parent()
number = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
print(number.value, "CLONER_PARENT_PID" in os.environ)
"""

GARBAGE = """
from cloner.process import lasting_imports

class Garbage:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("collected")

with lasting_imports():
    Garbage()
    many = [[] for _ in range(100_000)]
    print("imported")
many = [[] for _ in range(100_000)]
print("worked")
kept = Garbage()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != PARENT_PID}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_a_process_is_killed_with_its_parent_and_does_not_pass_the_parents_id_on() -> None:
    assert run({PARENT_PID: str(os.getpid())}).stdout == "9 False\n"


def test_a_process_started_by_hand_may_outlive_its_parent() -> None:
    assert run({}).stdout == "0 False\n"


def test_a_process_whose_launcher_is_gone_ends_with_a_sentence() -> None:
    result = run({PARENT_PID: "1" if os.getpid() != 1 else "2"})

    assert (result.returncode, result.stderr) == (1, "the process that started this one is gone\n")


def test_garbage_is_collected_neither_during_the_imports_nor_at_the_exit() -> None:
    ran = subprocess.run([sys.executable, "-c", GARBAGE], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "imported\ncollected\nworked\n", "")
