"""The rounds of a batch that is reviewed, one after another: the collector's task runs in the test's process, workers
and reviewers are what the test says."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from redis import Redis

from cloner.collector import reviewing, tasks
from cloner.collector.rounds import MAX_FRUITLESS
from cloner.output.reviews import Reviews
from cloner.protocol.reviews import ReviewAnswer
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.cleanup import chord_id
from cloner.state.connection import connect
from cloner.state.progress import Round
from tests.support.manifests import manifest
from tests.support.reviews import BATCH_ID, FinishedBatch
from tests.support.stub_reviewer import GOOD


class Scene:
    """A batch of two segments, whose chunk has ended."""

    def __init__(self, out: Path, url: str, count: int = 2) -> None:
        self.settings = Settings(redis_url=url, fleet="main", out_dir=out)
        self.app = make_app(self.settings)
        self.redis = connect(url, decode=False)
        self.batches = BatchStore.of(self.settings, self.redis)
        self.batch = FinishedBatch(out, count, "all")
        self.batches.add(self.batch.manifest, "round-robin", check=lambda: None)
        self.batches.set_running(BATCH_ID)
        reviewing._kept.clear()

    @property
    def round(self) -> Round:
        return self.batches.round(BATCH_ID)

    def end_round(self, *, end_review: bool = False) -> Round:
        """Returns the next one."""
        tasks._end_round(self.redis, self.settings, BATCH_ID, self.round.number, end_review)
        return self.round

    def answer(self, answer: ReviewAnswer) -> None:
        for number in range(self.round.reviews):
            task_id = f"{chord_id(BATCH_ID, self.round.number)}.{number}"
            self.app.backend.store_result(task_id, answer.model_dump(mode="json"), "SUCCESS")

    def restart(self) -> None:
        """Another process goes on."""
        reviewing._kept.clear()

    def overwrite(self, segment: int) -> None:
        """As another program may: the file is not what the record says."""
        (self.settings.out_dir / f"book/{segment}.wav").write_bytes(b"another program's")

    def reviewed(self) -> set[int | None]:
        reviews = Reviews(self.settings.out_dir, BATCH_ID)
        reviews.refresh()
        return {item.segment for item in reviews.takes}


@pytest.fixture
def scene(tmp_path: Path, redis: Redis, valkey_url: str) -> Scene:
    return Scene(tmp_path, valkey_url)


def test_a_segment_that_no_round_can_speak_does_not_prolong_the_review(scene: Scene) -> None:
    scene.overwrite(1)
    rounds = [scene.round]
    while not scene.batches.is_done(BATCH_ID):
        rounds.append(scene.end_round())
        scene.answer(GOOD)
        assert len(rounds) < 12, rounds
    chunks = [one for one in rounds if not one.reviews]
    assert len(chunks) == 1 + MAX_FRUITLESS
    result = scene.batches.result(BATCH_ID)
    assert result
    assert (result.generated, result.failed, result.review.state, result.review.reviewed) == (1, 1, "complete", 1)


def test_a_review_that_is_ended_is_followed_by_no_round(scene: Scene) -> None:
    scene.end_round()
    scene.overwrite(1)
    scene.end_round(end_review=True)
    result = scene.batches.result(BATCH_ID)
    assert result
    assert (result.failed, result.review.state) == (1, "incomplete")


def test_a_file_that_is_lost_during_the_review_is_spoken_again_and_no_answer_is_lost(scene: Scene) -> None:
    scene.end_round()  # the reference
    scene.answer(GOOD)
    assert scene.end_round().reviews == 2
    scene.answer(GOOD)
    scene.restart()
    scene.overwrite(1)
    following = scene.end_round()
    assert (following.chunks, following.reviews) == ((7,), 0)
    assert scene.reviewed() == {0}


@pytest.mark.parametrize("answered", [True, False])
def test_what_was_sent_of_a_file_that_is_another_by_now_says_nothing(scene: Scene, answered: bool) -> None:
    scene.end_round()
    scene.answer(GOOD)
    assert scene.end_round().reviews == 2
    if answered:
        scene.answer(GOOD)
    record = scene.batch.record()
    scene.batch.speak(1, 1, record.results[1].digest)
    scene.restart()
    following = scene.end_round()
    sent = Reviews(scene.settings.out_dir, BATCH_ID)
    sent.refresh()
    digests = {item.segment: item.digest for item in sent.sent(following.number)}
    assert digests[1] == scene.batch.record().results[1].digest
    assert list(digests) == ([1] if answered else [0, 1])


def test_of_more_batches_than_are_kept_in_memory_the_first_stay_there_while_their_reviews_go_on(scene: Scene) -> None:
    reviews = [Mock(batch_id=f"b{number}", number=1) for number in range(reviewing.MOST_KEPT + 2)]
    for review in reviews:
        one = manifest().model_copy(update={"batch_id": review.batch_id})
        scene.batches.add(one, "round-robin", check=lambda: None)
        assert scene.batches.begin_round(review.batch_id, Round(1, (), reviews=1), {}, 1)
        reviewing._keep(review, scene.batches)
    assert [*reviewing._kept.values()] == reviews[: reviewing.MOST_KEPT]
    scene.batches.begin_round("b1", Round(2, (), reviews=1), {}, 1)  # by another process
    scene.batches.cancel("b2")
    for review in reviews[reviewing.MOST_KEPT :]:
        reviewing._keep(review, scene.batches)
    assert [*reviewing._kept] == ["b0", *(review.batch_id for review in reviews[3:])]
    reviewing._kept.clear()
