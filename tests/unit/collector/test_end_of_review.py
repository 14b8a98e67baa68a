"""The close of batches whose review does not come to its end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cloner.collector import closing, result, tasks
from cloner.collector.reviewing import Reviewing
from cloner.collector.spoken_again import SpokenAgain
from cloner.output.own_folder import OwnFolder
from cloner.output.record import read_result
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import Manifest
from cloner.protocol.results import BatchResult
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.counters import Count, Counters, failed_check
from cloner.state.keys import RedisKeys
from cloner.state.progress import Round
from tests.support.closed_batches import WORKER
from tests.support.reviews import BATCH_ID, FinishedBatch, ReviewEnd, answers, run_windows
from tests.support.stub_reviewer import BAD, BAD_CHECKS, GOOD, WORSE

FAILS = {"1.1": BAD}


@pytest.fixture
def blobs(redis: Redis, valkey_url: str) -> Redis:
    return connect(valkey_url, decode=False)


def close_cancelled(batch: FinishedBatch, redis: Redis, url: str) -> BatchResult:
    """Close a batch that is cancelled, as the collector does it; returns the result."""
    settings = Settings(redis_url=url, out_dir=batch.outputs.root)
    batches = BatchStore.of(settings, redis)
    batches.add(batch.manifest, "round-robin", check=lambda: None)
    batches.set_running(BATCH_ID)
    batches.cancel(BATCH_ID)
    tasks._end_round(redis, settings, BATCH_ID, None)
    return read_result(OwnFolder(batch.outputs.root, BATCH_ID))


def digest(batch: FinishedBatch) -> str:
    return batch.outputs.digest_of("book/1.wav")


def test_a_take_whose_process_died_before_its_line_gives_the_name_back(
    tmp_path: Path, blobs: Redis, valkey_url: str
) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, FAILS)
    assert first.next_round()
    before = digest(batch)
    batch.speak(1, 2, before, dies=True)
    closed = close_cancelled(batch, blobs, valkey_url)
    assert (closed.generated, closed.errors, digest(batch)) == (3, {}, before)
    assert closed.suspects[1].failed == sorted(BAD_CHECKS)
    assert not list((tmp_path / f".cloner/{BATCH_ID}/takes").iterdir())


def test_of_two_takes_that_were_replaced_the_last_one_gets_the_name_back(
    tmp_path: Path, blobs: Redis, valkey_url: str
) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, {"1.1": WORSE})
    assert first.next_round()
    better = batch.speak(1, 2, digest(batch))
    second = ReviewEnd(batch, first.number + 2, {"1.2": BAD})
    assert second.next_round()
    batch.speak(1, 3, better.digest, dies=True)
    closed = close_cancelled(batch, blobs, valkey_url)
    assert (closed.generated, digest(batch)) == (3, better.digest)
    assert closed.suspects[1].failed == sorted(BAD_CHECKS)


@pytest.mark.parametrize(("suspicion", "stays"), [(0.0, True), (500.0, False)], ids=["passes the checks", "fails them"])
def test_a_take_that_nobody_has_heard_is_compared_by_the_checks_and_is_a_suspect(
    tmp_path: Path, blobs: Redis, valkey_url: str, suspicion: float, stays: bool
) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    first = ReviewEnd(batch, 1, FAILS)
    assert first.next_round()
    before = digest(batch)
    second = batch.speak(1, 2, before, suspicion=suspicion)
    closed = close_cancelled(batch, blobs, valkey_url)
    assert digest(batch) == (second.digest if stays else before)
    assert closed.suspects[1].failed == sorted(BAD_CHECKS)
    review = closed.review
    assert (review.state, review.reviewed, review.failed) == ("incomplete", 2 if stays else 3, 0 if stays else 1)
    assert (review.not_reviewed, review.spoken_again) == (int(stays), 1)


def test_a_take_that_was_noted_and_never_generated_counts_as_no_attempt(
    tmp_path: Path, blobs: Redis, valkey_url: str
) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    assert ReviewEnd(batch, 1, FAILS).next_round()
    assert close_cancelled(batch, blobs, valkey_url).review.spoken_again == 0
    lines = (tmp_path / f".cloner/{BATCH_ID}/manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["attempts"] for line in lines] == [1, 1, 1]


def counted(batch: FinishedBatch, redis: Redis) -> dict[str, float]:
    """What the close of a batch has counted of its review."""
    reviewing = Reviewing(batch.manifest, batch.record(), batch.outputs, Settings(out_dir=batch.outputs.root))
    reviewing.collect(Round(9))
    reviewing.end()
    counters = Counters(redis, RedisKeys("main"))
    reviewing.count_failures(counters)
    counts = counters.read().get(WORKER, {})
    redis.flushdb()
    return {name: count for name, count in counts.items() if count}


def test_failures_of_reused_takes_are_counted_by_the_batch_that_has_reviewed_them(tmp_path: Path, redis: Redis) -> None:
    """The batch that has generated them was not reviewed."""
    batch = FinishedBatch(tmp_path, 3, "all", change=lambda line: replace(line, reused=True))
    run_windows(batch.review(), answers(FAILS, GOOD))
    found = counted(batch, redis)
    assert found == {failed_check(name): 1 for name in BAD_CHECKS} | {Count.REVIEW_SUSPECTS: 1}
    folder = tmp_path / ".cloner"
    (folder / BATCH_ID).rename(folder / "earlier")
    again = FinishedBatch(tmp_path, 3, "all", change=lambda line: replace(line, reused=True))
    assert again.review().failed == [1]
    assert counted(again, redis) == {}
    # Nor is the review of the earlier take counted once more when the segment gets another take.
    again.speak(1, 2, digest(again))
    run_windows(again.review(), answers({}, GOOD))
    assert counted(again, redis) == {}


def test_texts_are_in_memory_no_more_when_takes_have_been_chosen(
    tmp_path: Path, blobs: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    texts: list[str] = []

    def gather(manifest: Manifest, *rest: Any, **options: Any) -> BatchResult:
        texts.extend(row.text for row in manifest.speakers[0].segments)
        return result.gather(manifest, *rest, **options)

    monkeypatch.setattr(closing, "gather", gather)
    close_cancelled(batch, blobs, valkey_url)
    assert texts == [""] * 3


def test_what_is_spoken_again_is_noted_without_the_manifests_texts(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    key = ContentKeys(batch.manifest.speech).of(batch.manifest.speakers[0], batch.manifest.speakers[0].segments[1])
    first = ReviewEnd(batch, 1, FAILS)
    batch.manifest.drop_texts()
    again = SpokenAgain(first.review, batch.manifest, first.record, batch.outputs)
    assert again.next_round(Round(first.number), {})[0]
    assert [take.key for take in first.noted()] == [key]
