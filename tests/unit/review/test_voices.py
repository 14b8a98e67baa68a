"""The review on real human voices, on takes of other people, and on takes that are made to sound unnatural.

`make voices` measures more of them (`ops/BENCHMARKS.md`); this is a sample.
"""

from __future__ import annotations

import pytest

from tests.support.review_checks import ABSENT, ALL_ABSENT, OTHER, ReviewOutcome, review_voices
from tests.support.unnatural import UNNATURAL
from tests.support.voices import LANGUAGES, find_recordings

pytestmark = pytest.mark.slow

PER_VOICE = 8
"""Takes of each voice, and of others as if they were its own: 40 of five voices."""


@pytest.fixture(scope="module")
def outcome() -> ReviewOutcome:
    return review_voices(find_recordings(), takes=PER_VOICE, others=PER_VOICE, unnatural=1)


def test_takes_of_another_speaker_are_caught(outcome: ReviewOutcome) -> None:
    assert outcome.wrong[OTHER].total == len(LANGUAGES) * PER_VOICE
    assert outcome.wrong[OTHER].failed >= 38, outcome.wrong[OTHER]  # 95%


def test_without_that_speakers_reference_seven_of_ten_are(outcome: ReviewOutcome) -> None:
    assert outcome.wrong[ABSENT].total == len(LANGUAGES) * PER_VOICE
    assert outcome.wrong[ABSENT].failed >= 28, outcome.wrong[ABSENT]


def test_a_fifth_of_the_takes_is_where_all_of_a_speakers_are_that_strangers(outcome: ReviewOutcome) -> None:
    assert outcome.wrong[ALL_ABSENT].total >= 100
    assert outcome.wrong[ALL_ABSENT].failed >= outcome.wrong[ALL_ABSENT].total / 5, outcome.wrong[ALL_ABSENT]


@pytest.mark.parametrize("kind", UNNATURAL)
def test_unnatural_takes_are_caught(outcome: ReviewOutcome, kind: str) -> None:
    assert outcome.wrong[kind].failed == outcome.wrong[kind].total == len(LANGUAGES)


def test_no_recording_is_suspected(outcome: ReviewOutcome) -> None:
    assert outcome.good.total == len(LANGUAGES) * PER_VOICE
    assert outcome.good.failed == 0, outcome.false_alarms


def test_a_person_who_speaks_another_language_than_in_the_reference_is_not_suspected(outcome: ReviewOutcome) -> None:
    assert outcome.other_language.total >= PER_VOICE
    assert outcome.other_language.failed == 0
