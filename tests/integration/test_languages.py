"""The languages of texts, from the batch's file to the reviewer and the result, with real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner.output.kept_batch import KeptBatch
from cloner.output.record import batch_folder
from cloner.protocol.results import BatchResult
from tests.support.processes import run_cloner
from tests.support.recognition import MODEL
from tests.support.voices import find_recordings

pytestmark = pytest.mark.slow

ENGLISH = "A text that is long enough for a take of more than a second, so that it can be judged."
GERMAN = "Ein Text, der lang genug ist für eine Aufnahme von mehr als einer Sekunde, und deutsch."
WORD_CHECKS = {"wrong_words", "wrong_run"}


def write_batch(folder: Path, *, language: str) -> None:
    """Two texts in a language, that of their speaker, and a third in English."""
    recording = next(each for each in find_recordings()["en"] if each.name == "agent-newlocation")
    (folder / "anna.wav").write_bytes(recording.path.read_bytes())
    texts = [GERMAN, GERMAN, {"text": ENGLISH, "language": "en"}]
    reference = {"audio": "anna.wav", "text": recording.text}
    speaker = {"id": "anna", "language": language, "reference": reference, "texts": texts}
    batch = {"speakers": [speaker], "generation": {"attempts": 1}, "review": "all"}
    (folder / "batch.json").write_text(json.dumps(batch), encoding="utf-8")


def test_a_recogniser_of_english_alone_compares_no_words_of_german_texts(tmp_path: Path) -> None:
    """It hears no word of the text in the fake engine's tones, in whatever language they are."""
    command = ["run", "batch.json", "--out", "out", "--engine", "fake", "--reviewers", "1"]
    write_batch(tmp_path, language="de_AT")
    refused = run_cloner("plan", "batch.json", "--out", "out", "--engine", "fake", cwd=tmp_path)
    assert refused.returncode == 2
    assert "speakers[0]: language is 'de_AT'; did you mean 'de-AT'?" in refused.stderr

    write_batch(tmp_path, language="de-AT")
    assert run_cloner("plan", *command[1:-2], cwd=tmp_path).returncode == 0
    ended = run_cloner(*command, cwd=tmp_path, env={"CLONER_RECOGNISER": str(MODEL)})
    assert ended.returncode == 0, ended.stderr
    result = BatchResult.model_validate_json(ended.stdout)
    assert (result.review.state, result.review.reviewed) == ("complete", 3)
    assert (result.review.words_not_compared, result.review.unknown_language) == (2, 2)
    failed = {segment: {*suspect.failed} for segment, suspect in result.suspects.items()}
    assert failed[2] >= WORD_CHECKS
    assert not WORD_CHECKS & (failed.get(0, set()) | failed.get(1, set()))
    folder = tmp_path / "out/.cloner" / result.batch_id
    assert (
        "words not all compared in 2 (in 2 the recogniser does not know the language)"
        in (folder / "report.html").read_text()
    )

    # A part of the batch, by what is kept of it, has the languages of its texts.
    redo = ["redo", result.batch_id, "--out", "out", "--segment", "1", "--segment", "2"]
    ended = run_cloner(*redo, cwd=tmp_path, env={"CLONER_ENGINE": "fake"})
    assert ended.returncode == 0, ended.stderr
    again = BatchResult.model_validate_json(ended.stdout)
    (speaker,) = KeptBatch(batch_folder(tmp_path / "out", again.batch_id)).part(lambda _: True).speakers
    assert [speaker.language_of(row.segment) for row in speaker.segments] == ["de-AT", "en"]
