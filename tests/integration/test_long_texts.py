"""Long texts, and texts that cannot be spoken, from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from tests.support.batches import write_batch
from tests.support.processes import run_cloner

pytestmark = pytest.mark.slow

LONG = "This sentence is one of many in a long text. " * 60
"""About three minutes."""


def test_a_long_text_becomes_one_file_and_one_that_cannot_be_spoken_fails_alone(tmp_path: Path) -> None:
    batch = str(write_batch(tmp_path, [4], texts={1: LONG, 2: "🎉"}))
    arguments = (batch, "--out", "out", "--engine", "fake")
    for command in ("plan", "run"):
        refused = run_cloner(command, *arguments, "--strict", cwd=tmp_path)
        assert refused.returncode == 2
        assert "segment 2 of speaker '0': its text '🎉' has no letter and no digit; write what" in refused.stderr
        assert not (tmp_path / "out").exists()

    planned = run_cloner("plan", *arguments, cwd=tmp_path)
    assert planned.returncode == 0
    assert "Texts that are split into pieces: 1 (segment 1)" in planned.stdout.splitlines()
    assert "Texts that cannot be spoken: 1" in planned.stdout.splitlines()

    ran = run_cloner("run", *arguments, cwd=tmp_path)
    assert ran.returncode == 1, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["generated"], result["failed"]) == (3, 1)
    assert result["errors"]["2"]["code"] == "nothing_to_speak"
    assert soundfile.info(tmp_path / "out" / result["results"]["1"]).duration == pytest.approx(180, rel=0.1)
    assert "Speaker 0 progress: 1/4" in ran.stderr

    again = run_cloner("run", *arguments, cwd=tmp_path)
    assert json.loads(again.stdout)["reused"] == 3
