"""Batches whose recordings have no transcripts, with a real recogniser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cloner.events import Event
from tests.support.bad_inputs import Refuse, RunCommand
from tests.support.log_lines import fields_of, find_lines
from tests.support.recognition import MODEL
from tests.support.voices import find_recordings

ANNA = {"id": "anna", "reference": {"audio": "voice.wav"}, "texts": ["One."]}


@pytest.fixture
def batch(batch_folder: Path) -> str:
    recording = next(each for each in find_recordings()["en"] if each.name == "agent-alreadyon")
    shutil.copy(recording.path, batch_folder / "voice.wav")
    (batch_folder / "a.json").write_text(json.dumps({"speakers": [ANNA]}))
    return "a.json"


@pytest.mark.slow
def test_a_plan_writes_what_is_missing_and_a_run_uses_it_as_it_is_corrected(
    batch: str, batch_folder: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_RECOGNISER", str(MODEL))
    plan = ["plan", batch, "--out", "out", "--engine", "fake"]
    status, _, stderr = run_command(*plan)
    assert status == 0, stderr
    (line,) = find_lines(stderr.splitlines(), Event.TRANSCRIPT_WRITTEN, language="en")
    text = fields_of(line, Event.TRANSCRIPT_WRITTEN)["text"]
    assert text.startswith("That agent is already logged on.")
    transcript = batch_folder / "voice.lab"
    assert transcript.read_text() == f"{text}\n"
    transcript.write_text("That agent is already locked on.\n")
    monkeypatch.setenv("CLONER_RECOGNISER", "a-model-that-is-gone")
    status, _, stderr = run_command("run", batch, "--out", "out", "--engine", "fake")
    assert status == 0, stderr
    assert not find_lines(stderr.splitlines(), Event.TRANSCRIPT_WRITTEN)
    assert transcript.read_text() == "That agent is already locked on.\n"


def test_a_recogniser_that_is_not_there_ends_it_before_anything_is_queued(
    batch: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_RECOGNISER", "small")
    monkeypatch.setenv("CLONER_RECOGNISER_CACHE", "nowhere")
    refuse(batch, "CLONER_RECOGNISER='small': there is no such folder, and no model of that name has been fetched")
