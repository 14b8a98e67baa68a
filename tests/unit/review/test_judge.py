"""The checks of a review, on findings without models."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from cloner.checks import check_set
from cloner.checks.catalogue import CHECKS, beyond
from cloner.checks.check_set import CheckResult, parse_limits
from cloner.review.heard import Heard, VoiceSample, WordErrors
from cloner.review.judge import REVIEW_CHECKS, UNCERTAIN_S, USUAL_LIKENESS, Finding, Judge, WrongVoice
from tests.support.judging import learn_and_judge

CERTAINTY = sqrt(0.5)
"""What the likeness of `UNCERTAIN_S` of speech counts."""


def heard(own: float, other: float = 0.0, naturalness: float | None = 3.2, speech_s: float = UNCERTAIN_S) -> Heard:
    """A take that is so like anna's reference, and so like bob's."""
    rest = np.sqrt(1 - own**2 - other**2)
    return Heard(VoiceSample(np.array([own, other, rest], np.float32), speech_s), naturalness)


@pytest.fixture
def judge() -> Judge:
    return Judge({"anna": heard(1), "bob": heard(0, 1)}, {})


def evaluate(judge: Judge, take: Heard) -> CheckResult:
    """Evaluate the take after twenty good ones."""
    for _ in range(20):
        assert learn_and_judge(judge, "anna", heard(0.8, 0.3)).failed == ()
    return learn_and_judge(judge, "anna", take)


def test_a_good_take_fails_nothing_and_has_all_scores(judge: Judge) -> None:
    result = evaluate(judge, heard(0.78, 0.3, 3.0))
    assert (result.failed, result.sentences) == ((), ())
    assert result.scores == {
        "another_voice": pytest.approx(-0.48, abs=1e-4),
        "unlike": pytest.approx(0.02 * CERTAINTY, abs=1e-4),
        "wrong_voice": pytest.approx(0.2, abs=1e-4),
        "unnatural": pytest.approx(0.2),
    }


def test_a_take_that_is_more_like_another_speaker_fails_although_it_is_like_its_own(judge: Judge) -> None:
    result = evaluate(judge, heard(0.68, 0.72, speech_s=1.5))
    assert result.failed == ("another_voice",)
    assert result.sentences == (
        "its voice is more like that of speaker 'bob' than like its own reference, by 0.04 (at most 0.03)",
    )


def test_a_take_that_is_less_like_its_reference_than_usual_fails(judge: Judge) -> None:
    result = evaluate(judge, heard(0.6, 0.3))
    assert result.failed == ("unlike",)
    assert "by 0.141, weighted by its length (at most 0.057)" in result.sentences[0]


def test_a_short_take_may_be_less_like_its_reference_than_a_long_one(judge: Judge) -> None:
    assert evaluate(judge, heard(0.68, 0.3, speech_s=1.5)).failed == ()
    assert evaluate(judge, heard(0.68, 0.3, speech_s=12)).failed == ("unlike",)


def test_a_take_that_sounds_less_natural_than_usual_fails(judge: Judge) -> None:
    result = evaluate(judge, heard(0.8, 0.3, 2.1))
    assert result.failed == ("unnatural",)
    assert "by 1.1 points of 5 (at most 0.8)" in result.sentences[0]


@pytest.mark.parametrize(
    ("score", "limit", "text"),
    [(0.0304, 0.03, "0.0304"), (0.8001, 0.8, "0.8001"), (0.06, 0.03, "0.06"), (0.03 + 1e-9, 0.03, "0.030000")],
)
def test_a_score_beyond_its_limit_is_not_rounded_to_it(score: float, limit: float, text: str) -> None:
    assert beyond(score, limit, 2) == text


def test_a_likeness_below_its_limit_is_not_rounded_to_it() -> None:
    voice = WrongVoice(0.28)
    assert voice.sentence(0.2804, Finding(None, 0.0, 0.0, None, None)).endswith("alike by 0.7196 (at least 0.72)")


def test_a_whispering_voice_is_compared_with_itself() -> None:
    judge = Judge({"anna": heard(1, naturalness=1.9)}, {})
    assert learn_and_judge(judge, "anna", heard(0.8, naturalness=1.7)).failed == ()
    assert learn_and_judge(judge, "anna", heard(0.8, naturalness=0.9)).failed == ("unnatural",)


def test_what_is_usual_follows_the_takes_and_not_the_few_that_are_wrong() -> None:
    judge = Judge({"anna": heard(1, naturalness=4.2)}, {})
    for _ in range(10):
        learn_and_judge(judge, "anna", heard(0.7, naturalness=3.2))
    learn_and_judge(judge, "anna", heard(0.1, naturalness=1.0))
    scores = learn_and_judge(judge, "anna", heard(0.7, naturalness=3.2)).scores
    assert scores["unlike"] == pytest.approx(0, abs=1e-4)
    assert scores["unnatural"] == pytest.approx(0)
    assert learn_and_judge(Judge({"anna": heard(1)}, {}), "anna", heard(0.7)).scores["unlike"] == pytest.approx(
        (USUAL_LIKENESS - 0.7) * CERTAINTY, abs=1e-4
    )


def test_the_first_takes_do_not_make_it_usual_that_all_are_wrong() -> None:
    judge = Judge({"anna": heard(1, naturalness=4.2)}, {})
    for _ in range(2):
        assert learn_and_judge(judge, "anna", heard(0.3, naturalness=2.0)).failed == ("unlike", "unnatural")
    assert learn_and_judge(judge, "anna", heard(0.3, naturalness=2.0)).failed == ("unlike", "wrong_voice", "unnatural")


def test_a_speaker_whose_takes_are_all_in_another_voice_fails_although_they_are_alike() -> None:
    judge = Judge({"anna": heard(1)}, {})
    found = [learn_and_judge(judge, "anna", heard(0.65)) for _ in range(20)]
    assert found[0].failed == ("unlike",)
    assert found[-1].failed == ("wrong_voice",)
    assert found[-1].sentences == (
        "neither its voice nor that of the speaker's other takes is the reference's: they are alike by 0.65 (at least"
        " 0.72)",
    )
    assert learn_and_judge(judge, "anna", heard(0.9)).failed == (), "it has found the voice"


def test_a_take_in_the_right_voice_passes_however_wrong_the_others_are() -> None:
    judge = Judge({"anna": heard(1)}, {})
    for _ in range(20):
        judge.learn("anna", 0.45, None)
    assert learn_and_judge(judge, "anna", heard(0.84)).failed == ("wrong_voice",)
    assert learn_and_judge(judge, "anna", heard(0.86)).failed == ()


def test_a_speaker_whose_takes_are_less_like_the_reference_than_others_are_fails_nothing(judge: Judge) -> None:
    for _ in range(4):
        judge.learn("anna", 0.73, 3.2)
    assert learn_and_judge(judge, "anna", heard(0.73)).failed == ()
    assert learn_and_judge(judge, "anna", heard(0.66)).failed == (), (
        "one that is a little less like it is no stranger's"
    )


def test_takes_of_one_speaker_say_nothing_of_another(judge: Judge) -> None:
    for _ in range(20):
        learn_and_judge(judge, "bob", heard(0.3, 0.5, 1.0))
    assert learn_and_judge(judge, "anna", heard(0.8, 0.3)).scores["unnatural"] == pytest.approx(0)


def test_a_take_that_is_too_short_has_no_score_and_fails_nothing(judge: Judge) -> None:
    assert learn_and_judge(judge, "anna", Heard(None, None)) == CheckResult((), (), {})


def test_a_reference_that_is_too_short_leaves_its_speaker_without_scores() -> None:
    judge = Judge({"anna": Heard(None, None), "bob": heard(0, 1)}, {})
    assert learn_and_judge(judge, "anna", heard(0.1, 0.9, 1.0)) == CheckResult((), (), {})


@pytest.mark.parametrize(
    ("words", "failed"),
    [
        (WordErrors(10, 4, 2), ()),
        (WordErrors(10, 6, 3), ("wrong_words",)),
        (WordErrors(100, 5, 5), ("wrong_run",)),
        (WordErrors(6, 6, 6), ("wrong_words", "wrong_run")),
        (WordErrors(0, 0, 0), ()),
        (WordErrors(1, 1, 1, surprise=6.7), ()),
        (WordErrors(2, 2, 2, surprise=2.9), ()),
        (WordErrors(2, 2, 2, surprise=3.1), ("wrong_words",)),
        (WordErrors(1, 7, 7, surprise=2.9), ("wrong_run",)),
        (WordErrors(1, 1, 1, surprise=6.8), ("improbable_text",)),
    ],
)
def test_a_take_that_says_other_words_fails_and_one_that_is_misheard_does_not(
    judge: Judge, words: WordErrors, failed: tuple[str, ...]
) -> None:
    assert learn_and_judge(judge, "anna", replace(heard(0.8), words=words)).failed == failed


def test_a_short_text_has_a_sentence_about_its_probability(judge: Judge) -> None:
    result = learn_and_judge(judge, "anna", replace(heard(0.8), words=WordErrors(1, 1, 1, surprise=9.2)))
    assert result.sentences == (
        "a recogniser hears another text: it gives this one a probability of 0.0001 a token (at least 0.0012)",
    )


def test_limits_may_be_set() -> None:
    judge = Judge({"anna": heard(1)}, {"unlike": 0.01})
    assert learn_and_judge(judge, "anna", heard(0.8)).failed == ("unlike",)


def test_no_check_has_the_name_of_another() -> None:
    names = [kind.name for kind in CHECKS] + [kind.name for kind in REVIEW_CHECKS]
    assert len({*names}) == len(names)


def test_the_settings_know_the_limits_of_all_checks() -> None:
    limits = parse_limits("unlike=0.01,wrong_run=9.5,pause=2")
    judge = Judge({"anna": heard(1)}, limits)
    take = replace(heard(0.8), words=WordErrors(100, 9, 9))
    assert learn_and_judge(judge, "anna", take).failed == ("unlike",)
    assert [kind.name for kind in REVIEW_CHECKS] == list(check_set.REVIEW_CHECK_NAMES)
