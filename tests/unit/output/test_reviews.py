"""The notes of a batch's reviews."""

from __future__ import annotations

from pathlib import Path

from cloner.output.reviews import REVIEWS, Reviewed, Reviews, TakeReview
from cloner.protocol.reviews import ReviewAnswer

TAKE = TakeReview(3, "d" * 32, "anna", {"unlike": 0.2}, suspicion=1.25, likeness=0.6, naturalness=3.0, suspect=True)
REFERENCE = ReviewAnswer(naturalness=3.5)


def noted(root: Path) -> Reviews:
    reviews = Reviews(root, "b")
    reviews.refresh()
    return reviews


def test_another_process_reads_what_was_noted(tmp_path: Path) -> None:
    reviews = noted(tmp_path)
    reviews.note_sample([3, 5])
    sent = [Reviewed(None, "r" * 64), Reviewed(3, "d" * 32), Reviewed(5, "e" * 32)]
    reviews.note_sent(1, sent)
    reviews.note_answers(1, [TAKE], [("r" * 64, REFERENCE)], [sent[2]])
    for found in (reviews, noted(tmp_path)):
        assert found.sample == [3, 5]
        assert (found.sent(1), found.sent(0)) == (sent, [])
        assert found.takes == {sent[1]: TAKE}
        assert found.references == {"r" * 64: REFERENCE}
        assert [found.has(item) for item in sent] == [True, True, False]
        assert [found.unanswered(item) for item in sent] == [0, 0, 1]


def test_what_is_noted_twice_counts_once(tmp_path: Path) -> None:
    reviews, other = noted(tmp_path), noted(tmp_path)
    item = Reviewed(5, "e" * 32)
    for process in (reviews, other):  # the same message, delivered twice
        process.note_sample([3])
        process.note_answers(1, [TAKE], [], [item])
    assert noted(tmp_path).unanswered(item) == 1
    other.note_answers(2, [TakeReview(3, "d" * 32, "anna", {})], [], [item])
    assert noted(tmp_path).unanswered(item) == 2
    assert noted(tmp_path).takes[Reviewed(3, "d" * 32)] == TAKE


def test_the_first_review_of_a_segment_is_known(tmp_path: Path) -> None:
    reviews = noted(tmp_path)
    reviews.note_answers(1, [TAKE], [], [])
    reviews.note_answers(3, [TakeReview(3, "f" * 32, "anna", {})], [], [])
    assert reviews.first == {3: TAKE}


def test_a_line_that_a_crash_has_torn_is_passed_over(tmp_path: Path) -> None:
    reviews = noted(tmp_path)
    reviews.note_sample([3])
    path = tmp_path / ".cloner/b" / REVIEWS
    with path.open("ab") as file:
        file.write(b'{"take":{"segment":3,"dig')
    later = noted(tmp_path)
    later.note_answers(1, [TAKE], [], [])
    assert list(later.takes.values()) == list(noted(tmp_path).takes.values()) == [TAKE]
