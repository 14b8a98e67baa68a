"""Which takes of a batch are reviewed, and what becomes of the reviewers' answers."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloner.batch import ReviewSample
from cloner.collector.batch_review import MOST_SENT, UNANSWERED, UNREADABLE
from cloner.collector.review_requests import take_request
from cloner.collector.review_result import review_result
from cloner.output.audio_files import OutputRoot
from cloner.output.reviews import Reviews
from cloner.protocol.results import SegmentResult
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest, VoiceRow, WordsRow, pack_embedding
from cloner.review.heard import VoiceSample
from cloner.review.likeness import Likeness, Voices
from tests.support.closed_batches import Change
from tests.support.reviews import BATCH_ID, FinishedBatch, answers, run_windows
from tests.support.stub_reviewer import BAD, GOOD


def suspect(*segments: int) -> Change:
    return lambda line: replace(line, suspicion=2.0) if line.segment in segments else line


def voice(*direction: float) -> ReviewAnswer:
    """An answer with a voice."""
    embedding = np.zeros(256, np.float32)
    embedding[: len(direction)] = direction
    row = VoiceRow(embedding=pack_embedding(embedding / np.linalg.norm(embedding)), speech_s=3.0)
    return ReviewAnswer(voice=row, naturalness=3.0)


def test_all_takes_are_sent_in_windows_after_the_references(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 40, "all")
    review = batch.review()
    first, *takes = run_windows(review, answers({}, GOOD))
    assert [what.partition(" ")[0] for what in first] == ["reference"]
    assert takes == [[f"{n}.1" for n in range(32)], [f"{n}.1" for n in range(32, 40)]]
    assert (review.reviewed, review.failed) == (40, [])
    assert run_windows(batch.review(), answers({}, GOOD)) == []


def test_suspects_are_reviewed_and_a_random_sample_of_the_others(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 20, "suspects", change=suspect(4, 9))
    review = batch.review()
    assert sorted(review.takes) == list(range(20))
    assert sorted(review.reviews.sample or ()) == [n for n in range(20) if n not in {4, 9}]


def test_a_part_of_the_batch_is_chosen_once(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 20, ReviewSample(sample=0.21), change=suspect(*range(10)))
    chosen = sorted(batch.review().takes)
    assert len(chosen) == 5
    batch.manifest = batch.manifest.model_copy(update={"review": ReviewSample(sample=1.0)})
    assert sorted(batch.review().takes) == chosen  # as noted


@pytest.mark.parametrize("died_after", ["the window was noted", "its answers were noted"])
def test_no_finished_review_is_repeated_by_another_process(tmp_path: Path, died_after: str) -> None:
    batch = FinishedBatch(tmp_path, 40, "all")
    review = batch.review()
    run_windows(review, answers({}, GOOD), most=1)
    sent = review.window(2)
    given: list[ReviewAnswer | None] = [BAD if request.what == "3.1" else GOOD for request in sent]
    if died_after == "its answers were noted":
        review.collect(2, given)
    other = batch.review()
    other.collect(2, given)
    assert other.failed == [3]
    assert run_windows(other, answers({}, GOOD), number=3) == [[f"{n}.1" for n in range(32, 40)]]
    assert other.reviewed == 40


def test_what_has_no_answer_is_sent_again_and_then_given_up_alone(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    review = batch.review()
    sent = run_windows(review, lambda request: None if request.what == "1.1" else GOOD)
    assert sent[1:] == [["0.1", "1.1", "2.1"], *[["1.1"]] * (MOST_SENT - 1)]
    assert review.present[1].error == UNANSWERED
    result = review_result("all", review, batch.record(), review.present, is_complete=True)
    assert (result.state, result.reviewed, result.not_reviewed) == ("complete", 2, 1)


def test_a_take_that_reviewers_cannot_hear_is_sent_again_and_then_not_reviewed(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    review = batch.review()
    sent = run_windows(review, answers({"1.1": ReviewAnswer(error="it is silent")}, GOOD))
    assert sent[1:] == [["0.1", "1.1"], ["1.1"]]
    assert review.present[1].error == "it is silent"
    assert review.failed == []


def test_what_one_reviewer_cannot_hear_another_one_may(tmp_path: Path) -> None:
    """References, too, before the takes that are compared with them."""
    batch = FinishedBatch(tmp_path, 40, "all")
    review = batch.review()
    failed: set[str] = set()

    def fails_first(request: ReviewRequest) -> ReviewAnswer:
        if request.what in failed:
            return BAD if request.what == "3.1" else GOOD
        failed.add(request.what)
        return ReviewAnswer(error="a package is missing")

    reference, again, *takes = run_windows(review, fails_first)
    assert [what.partition(" ")[0] for what in reference] == ["reference"]
    assert again == reference
    assert sorted(what for window in takes for what in window) == sorted(2 * [f"{n}.1" for n in range(40)])
    result = review_result("all", review, batch.record(), review.present, is_complete=True)
    assert (result.state, result.reviewed, result.not_reviewed, review.failed) == ("complete", 40, 0, [3])


def test_answers_that_two_processes_collect_count_once(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    review = batch.review()
    run_windows(review, answers({}, GOOD), most=1)
    given = [ReviewAnswer(error="a package is missing") for _ in review.window(2)]
    review.collect(2, given)
    other = batch.review()
    other.collect(2, given)
    assert sorted(*run_windows(other, answers({}, GOOD), number=3)) == ["0.1", "1.1"]
    assert [take.error for take in other.present.values()] == ["", ""]


@pytest.mark.parametrize("what", ["1.1", "reference"])
def test_an_answer_that_cannot_be_noted_gives_up_what_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    review = batch.review()
    words = WordsRow.model_construct(units=10, errors=0, longest_run=math.inf)
    wrong = ReviewAnswer.model_construct(error="", naturalness=None, voice=None, words=words)
    sent = run_windows(review, lambda r: wrong if r.what.startswith(what) else GOOD, most=4)
    assert sent[1:] == [["0.1", "1.1"]]
    assert run_windows(batch.review(), answers({}, GOOD)) == []
    if what == "1.1":
        assert review.present[1].error == UNREADABLE
    assert review.reviewed == 2


def test_a_file_that_cannot_be_read_is_not_reviewed(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    review = batch.review()
    (tmp_path / "book/1.wav").write_bytes(b"no audio")
    assert run_windows(review, answers({}, GOOD))[1:] == [["0.1"]]
    assert "book/1.wav cannot be read" in review.present[1].error


def test_takes_are_compared_with_the_speakers_others_also_by_another_process(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 12, "all")
    review = batch.review()
    # A hall, as it were: the cosine of a take and the reference is 0.75, and 0.85 is expected.
    heard = {f"{n}.1": voice(0.75, 0.661) for n in range(12)} | {"11.1": voice(0.5, 0.866)}
    reference, *_ = review.window(1)
    review.collect(1, [voice(1)])
    assert reference.what.startswith("reference")
    sent = review.window(2)
    review.collect(2, [heard[request.what] if int(request.what[:-2]) < 10 else None for request in sent])
    assert review.failed == []
    other = batch.review()
    run_windows(other, answers(heard, GOOD), number=3)
    assert other.failed == [11]


def test_a_takes_likeness_is_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    compare = Voices.likeness

    def counted(voices: Voices, take: VoiceSample, speaker: str) -> Likeness | None:
        compared.append(speaker)
        return compare(voices, take, speaker)

    monkeypatch.setattr(Voices, "likeness", counted)
    review = FinishedBatch(tmp_path, 3, "all").review()
    run_windows(review, answers({}, voice(1)))
    assert (review.reviewed, compared) == (3, ["anna"] * 3)


def test_takes_that_are_all_wrong_are_not_usual_and_nor_are_those_that_are_spoken_again(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all", attempts=4)
    number = 1
    for take in (2, 3, 4):
        review = batch.review()
        number += 1 + len(
            run_windows(review, lambda r: voice(1) if r.what.startswith("ref") else voice(0.3, 0.95), number)
        )
        assert review.failed == [0, 1]
        for segment in range(2):
            batch.speak(segment, take, batch.record().results[segment].digest)


def test_a_speaker_without_a_recording_is_judged_without(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    for path in (tmp_path / ".cloner/references").iterdir():
        path.write_bytes(b"damaged")
    review = batch.review()
    assert run_windows(review, answers({}, voice(1))) == [["0.1", "1.1"]]
    assert review.failed == []


def test_long_takes_are_shortened_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    for module in ("review_requests", "batch_review"):
        monkeypatch.setattr(f"cloner.collector.{module}.LONGEST_S", 0.5)
    review = batch.review()
    review.collect(1, [GOOD for _ in review.window(1)])
    requests = review.window(2)
    seconds = [take.line.audio_s for take in review.takes.values()]
    assert [request.text for request in requests] == ["Text 0.", "Text 1."]
    assert [request.part for request in requests] == pytest.approx([0.5 / whole for whole in seconds])
    review.collect(2, [GOOD, voice(1)])
    assert [take.words for take in review.present.values()] == ["beginning", ""]
    result = review_result("all", review, batch.record(), review.present, is_complete=True)
    assert (result.reviewed, result.words_not_compared) == (2, 2)


def test_without_a_recogniser_no_words_are_compared_however_short_a_take_is(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 2, "all")
    review = batch.review()
    run_windows(review, answers({"0.1": GOOD}, voice(1)))
    assert [take.words for take in review.present.values()] == ["compared", ""]
    assert review_result("all", review, batch.record(), review.present, is_complete=True).words_not_compared == 1


def test_of_a_long_take_no_more_is_read_than_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloner.collector.review_requests.LONGEST_S", 5.0)
    batch = FinishedBatch(tmp_path, 1, "all")
    line = batch.record().results[0]
    with (tmp_path / line.output).open("r+b") as file:
        file.truncate(2**26)
        file.seek(40)
        file.write((2**26 - 44).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        _, seconds = take_request(BATCH_ID, line, "A text.", "", batch.outputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds == 5.0
    assert peak < 2**24


def test_the_error_rate_is_of_what_is_delivered(tmp_path: Path) -> None:
    """Of 20 segments, two are suspects and pass; five others are reviewed, of which one fails."""
    batch = FinishedBatch(tmp_path, 20, "suspects", change=suspect(4, 9))
    Reviews(batch.outputs.root, BATCH_ID).note_sample([0, 1, 2, 3, 5])
    review = batch.review()
    run_windows(review, answers({"2.1": BAD}, GOOD))
    rate = review_result("suspects", review, batch.record(), review.present, is_complete=True).error_rate
    assert rate
    assert rate.sampled == 5
    # Suspects and the one that fails, and one in five of the 13 that no reviewer has heard.
    assert rate.estimate == pytest.approx((3 + 13 / 5) / 20)
    assert 3 / 20 < rate.low < rate.estimate < rate.high <= 16 / 20


def test_the_error_rate_of_a_batch_that_was_heard_as_a_whole_is_known(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 4, "all")
    review = batch.review()
    run_windows(review, answers({"2.1": BAD}, GOOD))
    rate = review_result("all", review, batch.record(), review.present, is_complete=True).error_rate
    assert rate
    assert (rate.low, rate.estimate, rate.high) == (0.25, 0.25, 0.25)


def test_the_error_rate_of_a_batch_whose_takes_were_heard_but_for_one_is_in_an_interval(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 5, "all")
    review = batch.review()
    run_windows(review, answers({"2.1": BAD, "3.1": ReviewAnswer(error="it is silent")}, GOOD))
    rate = review_result("all", review, batch.record(), review.present, is_complete=True).error_rate
    assert rate
    assert (rate.low, rate.estimate, rate.high, rate.sampled) == (0.2, 0.25, 0.4, 0)
    assert review_result("all", review, batch.record(), review.present, is_complete=False).error_rate is None


def test_without_any_answer_there_is_no_error_rate(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 4, "all")
    result = review_result("all", batch.review(), batch.record(), batch.review().present, is_complete=False)
    assert (result.state, result.reviewed, result.not_reviewed, result.error_rate) == ("incomplete", 0, 4, None)


def test_failed_segments_are_not_reviewed(tmp_path: Path) -> None:
    def fail(line: SegmentResult) -> SegmentResult:
        return replace(line, code="cut_off", message="It is cut.") if line.segment == 1 else line

    assert sorted(FinishedBatch(tmp_path, 3, "all", change=fail).review().takes) == [0, 2]
    assert OutputRoot(tmp_path).root.joinpath(".cloner", BATCH_ID, "reviews.ndjson").exists()


def test_a_take_is_sent_with_the_language_of_its_text(tmp_path: Path) -> None:
    """And where the recogniser does not know it, the result counts that."""
    batch = FinishedBatch(tmp_path, 3, "all")
    batch.speak_in("de", {1: "", 2: "fr"})
    sent: dict[str, str] = {}

    def answer(request: ReviewRequest) -> ReviewAnswer:
        sent[request.what] = request.language
        return GOOD.model_copy(update={"words": None, "unknown_language": True}) if request.language == "fr" else GOOD

    review = batch.review()
    run_windows(review, answer)
    assert {what: language for what, language in sent.items() if not what.startswith("reference")} == {
        "0.1": "de",
        "1.1": "",
        "2.1": "fr",
    }
    assert [language for what, language in sent.items() if what.startswith("reference")] == [""]
    for known in (review, batch.review()):  # in this process, and in one that has only its notes
        result = review_result("all", known, batch.record(), known.present, is_complete=True)
        assert (result.reviewed, result.unknown_language, result.words_not_compared) == (3, 1, 1)


def test_takes_that_were_reviewed_as_texts_of_another_language_are_reviewed_again(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    batch.speak_in("", {2: "fr"})
    run_windows(batch.review(), answers({"1.1": BAD}, GOOD))
    folder = tmp_path / ".cloner"
    (folder / BATCH_ID).rename(folder / "earlier")
    again = FinishedBatch(tmp_path, 3, "all", change=lambda line: replace(line, reused=True))
    again.speak_in("", {1: "de", 2: "fr"})
    review = again.review()
    _, sent = run_windows(review, answers({}, GOOD))
    assert sent == ["1.1"]
    assert review.failed == []


def test_takes_that_earlier_batches_have_reviewed_are_not_reviewed_again(tmp_path: Path) -> None:
    batch = FinishedBatch(tmp_path, 3, "all")
    run_windows(batch.review(), answers({"1.1": BAD, "2.1": ReviewAnswer(error="it is silent")}, GOOD))
    folder = tmp_path / ".cloner"
    (folder / BATCH_ID).rename(folder / "earlier")
    again = FinishedBatch(tmp_path, 4, "all", change=lambda line: replace(line, reused=line.segment < 3))
    review = again.review()
    _, sent = run_windows(review, answers({}, GOOD))
    assert sent == ["2.1", "3.1"]  # one had come to nothing
    assert review.failed == [1]
    assert review.reviewed == 4
    (folder / BATCH_ID).rename(folder / "second")
    third = FinishedBatch(tmp_path, 4, "all", change=lambda line: replace(line, reused=line.segment != 2))
    (tmp_path / "book/2.wav").unlink()
    assert run_windows(third.review(), answers({}, GOOD)) == [], "no take is left that references are compared with"
