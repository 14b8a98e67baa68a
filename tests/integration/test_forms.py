"""Runs of batches that are no batch files of ours: a table on standard input, subtitles of one speaker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.batch_files import save_recording, write

pytestmark = pytest.mark.slow


def run(folder: Path, batch: str, *options: str, stdin: bytes = b"") -> tuple[dict[str, Any], str]:
    """The result of `cloner run` in `folder`, and what it logs."""
    command = [sys.executable, "-m", "cloner", "run", batch, "--engine", "fake", "--out", "out", *options]
    ran = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result, ran.stderr.decode()


def test_a_table_on_standard_input(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        save_recording(tmp_path / f"refs/{name}/a.wav", "Said.")
    table = "Speaker;Text;Note\r\nanna;Schöne Grüße.;x\r\nben;Das Mädchen läuft.;\r\n".encode("cp1252")
    result, log = run(tmp_path, "-", "--as", "csv", "--references", "refs", "--workers", "1", stdin=table)
    assert result["source"] == "standard-input"
    assert result["results"] == {"0": "anna/0001.wav", "1": "ben/0001.wav"}
    assert "standard-input: the file: it is not UTF-8, and is read as cp1252: Schöne, Grüße., Mädchen, läuft." in log
    assert "standard-input: line 1: the column 'Note' is not known, and is left out" in log
    again, _ = run(tmp_path, "-", "--as", "csv", "--references", "refs", "--workers", "1", stdin=table)
    assert again["reused"] == 2


def test_subtitles_of_one_speaker(tmp_path: Path) -> None:
    anna = save_recording(tmp_path / "elsewhere/anna.wav", "I am Anna.")
    cues = (f"{cue}\n00:00:0{cue},000 --> 00:00:0{cue},900\nCue {cue}.\n" for cue in (1, 2, 5))
    (tmp_path / "batch").mkdir()
    write(tmp_path / "batch/film.srt", "\n".join(cues))
    result, _ = run(tmp_path / "batch", "film.srt", "--reference", str(anna))
    assert [*result["results"].values()] == ["anna/0001.wav", "anna/0002.wav", "anna/0005.wav"]
    assert all((tmp_path / "batch/out" / output).is_file() for output in result["results"].values())
