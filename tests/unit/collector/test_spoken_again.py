"""Takes that fail the review are spoken again, and the better one stays."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from cloner.collector.files import write_files
from cloner.collector.result import gather
from cloner.collector.review_result import review_result
from cloner.output.kept_take import find_kept_take
from cloner.output.search import find_outputs
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.results import Attempt, SegmentResult
from cloner.protocol.reviews import ReviewAnswer
from cloner.settings import Settings
from cloner.state.progress import ChunkProgress, Round
from tests.support.reviews import BATCH_ID, FinishedBatch, ReviewEnd
from tests.support.stub_reviewer import BAD, WORSE

FAILS = {"1.1": BAD}


def digest(batch: FinishedBatch, segment: int) -> str:
    return batch.outputs.digest_of(f"book/{segment}.wav")


def test_what_fails_gets_a_round_with_another_take(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    reviewed = ReviewEnd(batch, 1, FAILS)
    assert reviewed.next_round() == Round(reviewed.number + 1, (7,), again=True)
    (take,) = reviewed.noted()
    segment, number, seed, replaces = take.row
    assert (segment, number, replaces, take.output) == (1, 2, digest(batch, 1), "book/1.wav")
    assert seed != batch.manifest.speakers[0].segments[1][3]
    assert len(take.key) == 64


def test_a_process_that_died_before_the_round_began_does_not_use_up_an_attempt(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all", attempts=2)
    reviewed = ReviewEnd(batch, 1, FAILS)
    first, noted = reviewed.next_round(), reviewed.noted()
    other = ReviewEnd(batch, reviewed.number, {})
    assert (other.next_round(), other.noted()) == (first, noted)


def test_where_nothing_fails_there_is_no_round(tmp_path: Path) -> None:
    assert ReviewEnd(FinishedBatch(tmp_path, 3, "all"), 1, {}).next_round() is None


def test_attempts_while_a_chunk_ran_count(tmp_path: Path) -> None:
    def tried_twice(line: SegmentResult) -> SegmentResult:
        attempts = [Attempt(0, number, number, 1.0, {"loop": 2.0}, kept=number == 2) for number in (1, 2)]
        return replace(line, attempts=attempts, suspicion=2.0) if line.segment == 1 else line

    batch = FinishedBatch(tmp_path, 3, "all", attempts=2, change=tried_twice)
    assert ReviewEnd(batch, 1, FAILS).next_round() is None
    batch.manifest = batch.manifest.model_copy(
        update={"generation": batch.manifest.generation.model_copy(update={"attempts": 3})}
    )
    assert ReviewEnd(batch, 1, FAILS).next_round()


def test_takes_of_earlier_batches_count(tmp_path: Path) -> None:
    def reused(line: SegmentResult) -> SegmentResult:
        return replace(line, reused=True, take=3) if line.segment == 1 else line

    assert ReviewEnd(FinishedBatch(tmp_path, 3, "all", change=reused), 1, {"1.3": BAD}).next_round() is None


def test_a_chunk_that_was_given_up_is_not_sent_again(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    assert ReviewEnd(batch, 1, FAILS).next_round(ChunkProgress(given_up=True)) is None


def test_a_better_take_stays_and_is_the_one_that_counts(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    line = batch.speak(1, 2, digest(batch, 1))
    second = ReviewEnd(batch, first.number + 2, {})
    assert second.next_round() is None
    assert digest(batch, 1) == line.digest
    result = review_result("all", second.review, second.record, second.review.present, is_complete=True)
    assert (result.reviewed, result.failed, result.spoken_again) == (3, 0, 1)


def test_a_worse_take_gives_its_name_back_and_is_kept(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all", attempts=2)
    before = digest(batch, 1)
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    worse = batch.speak(1, 2, before)
    second = ReviewEnd(batch, first.number + 2, {"1.2": WORSE})
    assert second.next_round() is None
    assert digest(batch, 1) == before
    (kept,) = (tmp_path / f".cloner/{BATCH_ID}/takes").iterdir()
    assert worse.digest in kept.name
    result = review_result("all", second.review, second.record, second.review.present, is_complete=True)
    assert (result.failed, result.spoken_again) == (1, 1)
    write_files(
        Settings(out_dir=tmp_path),
        gather(batch.manifest, second.record, tmp_path, cancelled=False, progress={}, now=2.0),
        second.record,
    )
    lines = map(json.loads, (tmp_path / f".cloner/{BATCH_ID}/manifest.jsonl").read_text().splitlines())
    assert [(line["take"], line["attempts"]) for line in lines] == [(1, 1), (3, 2), (1, 1)]
    for known in (second, ReviewEnd(batch, second.number, {})):  # another process finds the same
        assert known.review.failed == [1]
        assert known.next_round() is None
        present = known.record.results[1]
        assert (present.digest, present.take) == (before, 3)
    (line,) = (tmp_path / f".cloner/{BATCH_ID}/review.jsonl").read_text().splitlines()
    assert (json.loads(line)["digest"], json.loads(line)["seed"]) == (before, batch.manifest.speakers[0].segments[1][3])


@pytest.mark.parametrize("step", ["the worse file is kept", "the better one has its name again"])
def test_a_process_that_dies_while_it_gives_a_name_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    batch = FinishedBatch(tmp_path, 3, "all", attempts=2)
    before = digest(batch, 1)
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    worse = batch.speak(1, 2, before)
    second = ReviewEnd(batch, first.number + 2, {"1.2": WORSE})
    with monkeypatch.context() as patch:
        function = "replace" if step == "the worse file is kept" else "write"
        patch.setattr(os, function, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            second.next_round()
    assert digest(batch, 1) == (worse.digest if step == "the worse file is kept" else before)
    assert ReviewEnd(batch, second.number, {}).next_round() is None
    assert digest(batch, 1) == before
    assert [worse.digest in path.name for path in (tmp_path / f".cloner/{BATCH_ID}/takes").iterdir()] == [True]
    assert batch.record().results[1].digest == before
    assert (tmp_path / f".cloner/{BATCH_ID}/review.jsonl").read_text()


def test_another_batch_takes_the_better_one_wherever_it_is(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all", attempts=2)
    before = digest(batch, 1)
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    batch.speak(1, 2, before)
    ReviewEnd(batch, first.number + 2, {"1.2": WORSE}).next_round()
    key = ContentKeys(batch.manifest.speech).of(batch.manifest.speakers[0], batch.manifest.speakers[0].segments[1])
    found = find_outputs(batch.outputs, {"book/renamed.wav": key}, None)
    assert found.elsewhere["book/renamed.wav"].line.digest == before


def test_of_two_takes_that_fail_the_checks_count_too(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all", attempts=2)
    before = digest(batch, 1)
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    batch.speak(1, 2, before, suspicion=500.0)
    assert ReviewEnd(batch, first.number + 2, {"1.2": BAD}).next_round() is None
    assert digest(batch, 1) == before


def test_a_take_that_passes_the_review_and_fails_the_checks_is_compared_too(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    before = digest(batch, 1)
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    batch.speak(1, 2, before, suspicion=500.0)
    second = ReviewEnd(batch, first.number + 2, {})
    assert second.next_round()
    assert digest(batch, 1) == before
    assert second.review.failed == [1]


def test_a_replacement_that_reviewers_cannot_hear_is_spoken_again(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    unheard = batch.speak(1, 2, digest(batch, 1))
    second = ReviewEnd(batch, first.number + 2, {"1.2": ReviewAnswer(error="it is silent")})
    assert second.next_round()
    assert digest(batch, 1) == unheard.digest
    assert second.review.present[1].error == "it is silent"


def test_the_third_take_has_another_seed_and_number(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    batch.speak(1, 2, digest(batch, 1))
    second = ReviewEnd(batch, first.number + 2, {"1.2": WORSE})
    assert second.next_round()
    assert [(end.again.count, end.again.repeated) for end in (first, second)] == [(1, 0), (1, 1)]
    before, after = second.noted()
    assert (before.row.number, after.row.number) == (2, 4)  # the first was the third again
    assert before.row.seed != after.row.seed
    assert after.row.replaces == digest(batch, 1) == before.row.replaces
    assert after.round > before.round
    batch.speak(1, 4, digest(batch, 1))
    assert ReviewEnd(batch, second.number + 2, {"1.4": BAD}).next_round() is None  # three attempts in all


def test_the_kept_take_is_the_one_that_the_file_has(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, FAILS)
    first.next_round()
    batch.speak(1, 2, digest(batch, 1))
    ReviewEnd(batch, first.number + 2, {"1.2": WORSE}).next_round()  # the first is the third again
    last = batch.speak(1, 4, digest(batch, 1))
    kept = find_kept_take(batch.outputs.root, BATCH_ID, 1)
    assert (kept.line.take, kept.line.digest) == (4, last.digest)


def test_a_take_that_could_not_be_spoken_uses_up_an_attempt(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    number = 1
    for _ in range(2):
        reviewed = ReviewEnd(batch, number, FAILS)
        assert reviewed.next_round()
        number = reviewed.number + 2
    assert ReviewEnd(batch, number, FAILS).next_round() is None
