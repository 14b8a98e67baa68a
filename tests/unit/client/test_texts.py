"""Texts that are split, and texts that cannot be spoken, as a plan names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.batch import Batch
from cloner.client.estimate import estimate
from cloner.client.texts import refuse_doubtful
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from tests.support.batches import write_batch, write_codes

LONG = "A sentence of a long text. " * 30


def batch(folder: Path, texts: dict[int, str], count: int = 10, **generation: object) -> Batch:
    return read_batch(write_batch(folder, [count], generation, texts=texts), out_root=None, references=None)


def test_a_plan_names_the_texts_that_are_split_and_those_that_cannot_be_spoken(tmp_path: Path) -> None:
    found = batch(tmp_path, {**dict.fromkeys(range(7), LONG), 8: "🎉!", 9: "\u200b..."})
    plan = estimate(found, [], [])
    silent = "has no letter and no digit; write what is to be spoken, or leave it out"
    assert plan.notes() == [
        "Texts that are split into pieces: 7 (segments 0, 1, 2, 3, 4, ...)",
        "Texts that cannot be spoken: 2",
        f"  segment 8 of speaker '0': its text '🎉!' {silent}",
        f"  segment 9 of speaker '0': its text '\\u200b...' {silent}",
    ]
    assert str(plan).startswith("8 segments are left to generate, ")
    assert plan.audio_s == estimate(found, ["audio/8.wav", "audio/9.wav"], []).audio_s
    with pytest.raises(BadBatch, match="2 problems, nothing was queued") as raised:
        refuse_doubtful(found)
    assert raised.value.exit_code == 2
    assert len(raised.value.problems) == 2


def test_one_text_is_one(tmp_path: Path) -> None:
    plan = estimate(batch(tmp_path, {0: LONG, 1: "..."}, 2), [], [])
    assert plan.notes()[:2] == [
        "Texts that are split into pieces: 1 (segment 0)",
        "Texts that cannot be spoken: 1",
    ]
    assert str(plan).startswith("1 segment is left to generate, ")
    assert str(estimate(batch(tmp_path, {0: "..."}, 1), [], [])) == "Nothing is left to generate"


def test_of_a_usual_batch_there_is_nothing_to_note(tmp_path: Path) -> None:
    found = batch(tmp_path, {})
    assert estimate(found, [], []).notes() == []
    refuse_doubtful(found)


def test_a_split_text_is_estimated_whole_and_another_at_its_limit_at_most(tmp_path: Path) -> None:
    split = estimate(batch(tmp_path, {0: "a" * 15_000}, 1), [], [])
    assert split.audio_s == pytest.approx(1000, rel=0.05)
    whole = estimate(batch(tmp_path, {0: "a" * 15_000}, 1, min_new_tokens=215, max_new_tokens=215), [], [])
    assert whole.audio_s == pytest.approx(10, rel=0.01)
    assert whole.notes() == []


def test_a_text_that_is_too_long_for_the_model_with_its_reference_is_named(tmp_path: Path) -> None:
    texts = {0: "天" * 4000, 1: "a" * 4000}
    fixed = {"min_new_tokens": 9, "max_new_tokens": 9}
    path = write_batch(tmp_path, [2], fixed, texts=texts)
    write_codes(tmp_path / "refs/spk0.npy", frames=2500)
    with pytest.raises(BadBatch) as raised:
        refuse_doubtful(read_batch(path, out_root=None, references=None))
    problem, doubt = raised.value.problems
    assert problem.where == "segment 0 of speaker '0'"
    assert doubt.where == "reference 'spk0.npy' of speaker '0'"
    assert problem.what == "reference and text have about 6505 tokens, and the model takes 6144"
    refuse_doubtful(read_batch(write_batch(tmp_path, [2], texts=texts), out_root=None, references=None))
