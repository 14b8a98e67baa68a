"""Which failed tests CI tries a second time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.scripts.second_try import LAST_FAILED, refusal

SCRIPT = Path(__file__).parents[3] / "ops" / "scripts" / "second_try.py"


@pytest.mark.parametrize(
    ("failed", "why"),
    [
        (["tests/chaos/test_a.py::test_x"], ""),
        (["tests/chaos/test_a.py::test_x", "tests/chaos/test_a.py::test_y"], "only one test"),
        (["tests/unit/test_a.py::test_x"], "1 of them are not under tests/chaos/"),
        (["tests/chaos/test_a.py::test_x", "tests/unit/test_a.py::test_x"], "1 of them are not under"),
        ([], "none of its tests did"),
    ],
)
def test_one_failed_test_under_chaos_gets_a_second_try(failed: list[str], why: str) -> None:
    assert why in refusal(failed)
    assert bool(refusal(failed)) == bool(why)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False])
def test_the_second_try_decides_and_the_failed_test_is_printed(passes: bool, tmp_path: Path) -> None:
    test = tmp_path / "tests" / "chaos" / "test_a.py"
    test.parent.mkdir(parents=True)
    test.write_text(f"def test_x():\n    assert {passes}\n")
    (tmp_path / LAST_FAILED).parent.mkdir(parents=True)
    (tmp_path / LAST_FAILED).write_text(json.dumps({"tests/chaos/test_a.py::test_x": True}))
    own = {**os.environ, "PYTEST_ADDOPTS": "-p no:xdist"}
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    assert ran.returncode == (0 if passes else 1), ran.stdout + ran.stderr
    assert "Failed at the first try:\n  tests/chaos/test_a.py::test_x\n" in ran.stdout
