"""Comparing voices, without the model."""

from __future__ import annotations

import numpy as np
import pytest

from cloner.review.heard import LEAST_SPEECH_S, VoiceSample
from cloner.review.likeness import SAME_VOICE, Likeness, Voices

ANNA, BOB, CLARA = np.eye(3, dtype=np.float32)


def voice(*direction: float, speech_s: float = 5.0) -> VoiceSample:
    vector = np.array(direction, np.float32)
    return VoiceSample(vector / np.linalg.norm(vector), speech_s)


@pytest.fixture
def voices() -> Voices:
    return Voices({"anna": voice(*ANNA), "bob": voice(*BOB), "clara": voice(*CLARA)})


def test_a_take_is_compared_with_its_own_reference_and_the_most_like_other(voices: Voices) -> None:
    likeness = voices.likeness(voice(0.8, 0.6, 0), "anna")
    assert likeness is not None
    assert likeness.own == pytest.approx(0.8)
    assert likeness.other == pytest.approx(0.6)
    assert likeness.nearest == "bob"
    assert likeness.margin == pytest.approx(-0.2)


def test_the_margin_of_another_speakers_take_is_above_0(voices: Voices) -> None:
    likeness = voices.likeness(voice(0.3, 0.1, 0.9), "anna")
    assert likeness is not None
    assert likeness.nearest == "clara"
    assert likeness.margin > 0.5


def test_a_speaker_alone_has_no_other() -> None:
    likeness = Voices({"anna": voice(*ANNA)}).likeness(voice(0, 1, 0), "anna")
    assert likeness == Likeness(own=0.0, other=None, nearest="")
    assert Likeness(0.2).margin < 0


def test_two_references_of_one_voice_are_not_each_others_other() -> None:
    again = voice(1, 0.5, 0)
    assert ANNA @ again.embedding > SAME_VOICE
    likeness = Voices({"anna": voice(*ANNA), "anna again": again, "bob": voice(*CLARA)}).likeness(again, "anna")
    assert likeness is not None
    assert likeness.nearest == "bob"
    assert likeness.margin < 0


def test_nothing_is_said_of_what_is_too_short(voices: Voices) -> None:
    short = LEAST_SPEECH_S - 0.01
    assert voices.likeness(voice(*BOB, speech_s=short), "anna") is None
    with_short = Voices({"anna": voice(*ANNA, speech_s=short), "bob": voice(*BOB)})
    assert with_short.likeness(voice(*BOB), "anna") is None
    assert with_short.likeness(voice(*ANNA), "bob") == Likeness(0.0)


def test_nothing_is_said_where_no_reference_is_known(voices: Voices) -> None:
    assert voices.likeness(voice(*ANNA), "dora") is None
    assert Voices({}).likeness(voice(*ANNA), "anna") is None
