"""The rounds of a batch that is reviewed, one after another: the collector's task runs in the test's process, workers
and reviewers are what the test says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from redis import Redis

from cloner.collector import batch_review, closing, review_turns, reviewing, tasks
from cloner.collector.batch_review import BatchReview
from cloner.collector.rounds import MAX_FRUITLESS
from cloner.output.reviews import REVIEWS, Reviews
from cloner.protocol.reviews import ReviewAnswer
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.cleanup import chord_id
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.progress import MOST_REVIEWS, Round
from tests.support.manifests import manifest
from tests.support.reviews import BATCH_ID, FinishedBatch, answers, run_windows
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

    def add_reviewed(self, batch_id: str) -> None:
        """Another batch, whose takes are reviewed."""
        other = manifest().model_copy(update={"batch_id": batch_id})
        self.batches.add(other, "round-robin", check=lambda: None)
        assert self.batches.begin_round(batch_id, Round(1, (), reviews=1, windows_since=1), {}, 1)

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
    assert [*reviewing._kept] == [BATCH_ID]
    scene.overwrite(1)
    scene.end_round(end_review=True)
    assert not reviewing._kept
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


def test_a_review_is_kept_in_memory_until_it_ends(scene: Scene) -> None:
    reviews = [Mock(batch_id=f"b{number}", number=1) for number in range(6)]
    for review in reviews:
        scene.add_reviewed(review.batch_id)
        reviewing._keep(review, scene.batches)
    assert [*reviewing._kept.values()] == reviews
    window = Round(2, (), reviews=1, windows_since=1)
    scene.batches.begin_round("b1", window, {}, 1)  # by another process
    scene.batches.begin_round("b2", replace(window, windows_since=2), {}, 1)  # with other takes
    scene.batches.begin_round("b3", Round(2, (7,), again=True), {}, 1)
    scene.batches.cancel("b4")
    reviewing._keep(reviews[0], scene.batches)
    assert [*reviewing._kept] == ["b0", "b1", "b5"]
    reviewing._kept.clear()


def test_processes_that_send_windows_in_turn_read_record_and_notes_once(
    tmp_path: Path, redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, valkey_url, count=150)
    read = Mock(wraps=closing._verified_record)
    monkeypatch.setattr(closing, "_verified_record", read)
    memories: list[dict[str, BatchReview]] = [{}, {}]
    reads_after: list[int] = []
    while not scene.batches.is_done(BATCH_ID):
        monkeypatch.setattr(reviewing, "_kept", memories[len(reads_after) % 2])
        scene.end_round()
        scene.answer(GOOD)
        reads_after.append(read.call_count)
        assert len(reads_after) < 12
    # The reference, five windows and the close.
    assert reads_after == [1, 2, 2, 2, 2, 2, 3]
    result = scene.batches.result(BATCH_ID)
    assert result
    assert (result.review.state, result.review.reviewed) == ("complete", 150)


def test_a_review_that_an_earlier_version_has_begun_ends_with_all_that_it_has_noted(
    tmp_path: Path, redis: Redis, valkey_url: str
) -> None:
    """That one did not say what became of a take's words, nor its language, nor when the windows began."""
    scene = Scene(tmp_path, valkey_url, count=MOST_REVIEWS + 1)
    for _ in ("the reference", "a window", "the last take"):
        scene.end_round()
        scene.answer(GOOD)
    path = tmp_path / f".cloner/{BATCH_ID}" / REVIEWS
    notes = [json.loads(line) for line in path.read_text().splitlines()]
    takes = [note["take"] for note in notes if "take" in note]
    assert [take.pop("words") for take in takes] == ["compared"] * MOST_REVIEWS
    path.write_text("".join(json.dumps(note, separators=(",", ":")) + "\n" for note in notes))
    key = RedisKeys(scene.settings.fleet).batch(BATCH_ID)
    present = json.loads(str(redis.hget(key, "round")))
    assert present.pop("windows_since") == 1
    del present["waits"]
    redis.hset(key, "round", json.dumps(present))
    scene.restart()
    scene.end_round()
    result = scene.batches.result(BATCH_ID)
    assert result
    review = result.review
    assert (review.state, review.reviewed, review.words_not_compared) == ("complete", MOST_REVIEWS + 1, 0)


def test_what_another_process_got_no_answer_for_is_reviewed_in_the_end(
    tmp_path: Path, redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one sends some takes, and the other, which gets no answer, one of them again."""
    scene = Scene(tmp_path, valkey_url, count=MOST_REVIEWS + 1)
    scene.end_round()
    scene.answer(GOOD)
    sent = [scene.end_round().reviews]
    with monkeypatch.context() as other:
        other.setattr(reviewing, "_kept", {})
        other.setattr(batch_review, "WINDOW_S", 0.1)
        sent.append(scene.end_round().reviews)
    while not scene.batches.is_done(BATCH_ID):
        scene.answer(GOOD)
        sent.append(scene.end_round().reviews)
        assert len(sent) < 9
    # The first process does not know that the others are to be sent again, until it reads the notes at the end.
    assert sent[:4] == [MOST_REVIEWS, 1, 1, MOST_REVIEWS - 1]
    result = scene.batches.result(BATCH_ID)
    assert result
    assert (result.review.state, result.review.reviewed) == ("complete", MOST_REVIEWS + 1)


def test_what_another_process_has_found_is_usual_for_this_one_too(tmp_path: Path) -> None:
    """Takes of another process sound worse than the reference, and so may the last one."""
    batch = FinishedBatch(tmp_path, 3 * MOST_REVIEWS + 1, "all")
    usual, worse, worst = (ReviewAnswer(naturalness=score) for score in (3.0, 2.4, 2.0))
    first = batch.review()
    run_windows(first, answers({}, usual), most=1)
    second = batch.review()
    run_windows(first, answers({}, usual), number=2, most=1)
    second.collect(2, [])
    run_windows(second, answers({}, worse), number=3, most=2)
    first.collect(4, [])
    assert run_windows(first, answers({}, worst), number=5) == [[f"{3 * MOST_REVIEWS}.1"]]
    assert (first.failed, first.reviewed) == ([], 3 * MOST_REVIEWS + 1)


class Crowd(Scene):
    """The same, after as many other batches as are reviewed at once."""

    def __init__(self, out: Path, url: str) -> None:
        super().__init__(out, url)
        for number in range(review_turns.MOST_BATCHES):
            self.add_reviewed(f"b{number}")

    def queued(self) -> int:
        return int(self.redis.llen(self.settings.queues.review_queue))


@pytest.fixture
def crowd(tmp_path: Path, redis: Redis, valkey_url: str) -> Crowd:
    return Crowd(tmp_path, valkey_url)


def test_a_batch_waits_while_many_others_are_reviewed_and_sends_nothing(crowd: Crowd) -> None:
    waiting = crowd.end_round()
    assert (waiting.number, waiting.waits, waiting.reviews, waiting.to_review) == (1, True, 0, 2)
    assert crowd.batches.progress(BATCH_ID).reviewing == "waits for its review (2 takes)"
    assert crowd.end_round() == waiting  # woken too early
    tasks._open(crowd.redis, crowd.settings, BATCH_ID)  # its message is delivered again
    assert (crowd.round, crowd.queued()) == (waiting, 0)


def test_a_batch_that_has_waited_is_reviewed_to_its_end_whoever_else_comes(crowd: Crowd) -> None:
    crowd.end_round()
    crowd.batches.set_broken("b3", "its collector has died")
    assert crowd.end_round().reviews == 1
    crowd.add_reviewed("late")
    while not crowd.batches.is_done(BATCH_ID):
        crowd.answer(GOOD)
        assert not crowd.end_round().waits
    result = crowd.batches.result(BATCH_ID)
    assert result
    assert (result.review.state, result.review.reviewed) == ("complete", 2)


def test_a_review_that_ends_while_it_waits_is_incomplete(crowd: Crowd) -> None:
    crowd.end_round()
    crowd.end_round(end_review=True)
    result = crowd.batches.result(BATCH_ID)
    assert result
    assert (result.generated, result.review.state, result.review.not_reviewed) == (2, "incomplete", 2)


def test_takes_that_are_lost_while_a_batch_waits_are_spoken_again(crowd: Crowd) -> None:
    crowd.end_round()
    crowd.overwrite(1)
    assert crowd.end_round().chunks == (7,)


def test_what_is_spoken_after_a_long_review_has_its_references(crowd: Crowd) -> None:
    """Redis has forgotten them, and the disk has not."""
    crowd.end_round()
    crowd.overwrite(1)
    assert crowd.end_round().chunks == (7,)
    digest = crowd.batch.manifest.speakers[0].reference.digest
    assert crowd.redis.ttl(RedisKeys(crowd.settings.fleet).reference(digest)) > crowd.settings.batch_ttl_s


def test_nothing_waits_where_nothing_is_to_be_reviewed(crowd: Crowd) -> None:
    crowd.batch.manifest = crowd.batch.manifest.model_copy(update={"review": "suspects"})
    crowd.redis.set(RedisKeys(crowd.settings.fleet).manifest(BATCH_ID), crowd.batch.manifest.pack())
    Reviews(crowd.settings.out_dir, BATCH_ID).note_sample([])
    crowd.end_round()
    assert crowd.batches.is_done(BATCH_ID)
