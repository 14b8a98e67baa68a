"""The estimated length of texts, and what can be spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner.batch import Generation
from cloner.text.length import estimated_frames, is_speakable, is_split, piece_frames

PIECE = Generation()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("The quick brown fox jumps over it. ", 2),
        ("今天天气很好我们去公园", 2),
        ("오늘은날씨가좋습니다", 2),
        ("1234567890", 2),
    ],
)
def test_scripts_with_a_syllable_a_character_take_longer(text: str, seconds: float) -> None:
    assert estimated_frames(text) * 2048 / 44_100 == pytest.approx(seconds, abs=0.5)


def test_a_text_of_more_than_20_s_is_split() -> None:
    assert [is_split("a" * length, PIECE) for length in (300, 315)] == [False, True]
    assert [is_split("天" * length, PIECE) for length in (90, 100)] == [False, True]
    assert is_split("a" * 300, Generation(piece_s=10.0))


def test_no_text_is_split_at_a_fixed_length() -> None:
    assert not is_split("a" * 10_000, Generation(min_new_tokens=20, max_new_tokens=20))


@given(st.text(alphabet=st.sampled_from("ab é5٣天あ가🎉\u0301ก"), min_size=90, max_size=330))
def test_a_text_is_split_if_its_estimate_is_longer_than_a_piece(text: str) -> None:
    assert is_split(text, PIECE) == (estimated_frames(text) > piece_frames(PIECE))


@pytest.mark.parametrize("text", ["🎉🎉", "...!?", "\u200b \u200b", "—", "。、"])
def test_emoji_and_punctuation_alone_are_not_spoken(text: str) -> None:
    assert not is_speakable(text)
    assert all(is_speakable(f"{text}{letter}") for letter in ("a", "5", "天", "ع", "ก"))
