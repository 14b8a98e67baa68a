"""The words that are heard in a take, compared with its text."""

from __future__ import annotations

import pytest

from cloner.recogniser.whisper import HeardWord
from cloner.review.heard import Heard, WordErrors
from cloner.review.judge import Judge
from cloner.review.words import word_errors

LONG = "The night train to the north leaves at ten, and there is one carriage with beds. Please have your ticket ready."


def heard(text: str, from_s: float = 0.0) -> list[HeardWord]:
    """Words as Whisper has them, one each half second."""
    return [HeardWord(f" {word}", from_s + 0.5 * place) for place, word in enumerate(text.split())]


def compare(text: str, said: str, language: str = "en") -> WordErrors:
    return word_errors(text, heard(said), language, 1000.0)


def is_suspected(errors: WordErrors) -> bool:
    return bool(Judge({}, {}).judge("anna", Heard(None, None, errors), None).failed)


@pytest.mark.parametrize(
    ("text", "said", "language"),
    [
        ("Good morning, everybody!", "good morning everybody", "en"),
        ("I won't do it.", "I will not do it.", "en"),
        ("Press one two three.", "Press 1, 2, 3.", "en"),
        ("It is 23, not 105.", "It is twenty-three, not one hundred and five.", "en"),
        ("In 1984, on May 2nd", "In nineteen eighty-four, on May second...", "en"),
        ("(excited) Agent login, [pause:2] please.", "Agent log in, please.", "en"),
        ("Agent log in to the voice mail.", "Agent login to the voicemail.", "en"),
        ("Él tiene 42 años.", "él tiene cuarenta y dos años", "es"),
        ("Vingt-trois personnes", "23 personnes.", "fr"),
        ("今天有二十三个人。", "今天有23个人", "zh"),
        ("今日は 雨です。", "今日は雨です", "ja"),
        ("٢٣ كتابا", "23 كتابا", "ar"),
        ("", "", "en"),
    ],
)
def test_other_spellings_of_the_same_words_are_no_errors(text: str, said: str, language: str) -> None:
    assert compare(text, said, language).errors == 0


@pytest.mark.parametrize(
    ("text", "said", "units", "errors", "run"),
    [
        ("One two three four.", "One two tree four.", 4, 1, 1),
        ("One two three four.", "One four.", 4, 2, 2),
        ("One two three four.", "One two three four, and so on.", 4, 3, 3),
        ("Good morning to you all.", "Good evening to all.", 5, 2, 1),
        ("Goodbye.", "", 1, 1, 1),
        ("", "Goodbye now.", 0, 2, 2),
    ],
)
def test_errors_and_their_longest_run_are_counted(text: str, said: str, units: int, errors: int, run: int) -> None:
    assert compare(text, said) == WordErrors(units, errors, run)


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert compare("今天天气很好", "今天天很好", "zh") == WordErrors(6, 1, 0.5)
    assert is_suspected(compare("今天天气很好", "明年我们一起去", "zh"))


@pytest.mark.parametrize("language", ["en", "xx"])
def test_words_after_the_last_sound_are_inventions(language: str) -> None:
    said = [*heard("The train leaves at ten."), *heard("Thank you for watching!", from_s=3.0)]
    assert word_errors("The train leaves at ten.", said, language, 2.6).errors == 0
    assert word_errors("The train leaves at ten.", said, language, 4.6).errors == 4


WORDS = [f"{first}{second}" for first in ("ba", "de", "fi", "go", "lu") for second in "bcdfghjklmnpqrstvwxz"]


@pytest.mark.parametrize(
    ("said", "errors", "run"),
    [
        (WORDS[:40], 0, 0),
        (WORDS[:30], 0, 0),
        (WORDS[:55], 0, 0),
        (WORDS[:10] + WORDS[18:40], 8, 8),
        (WORDS[:35] + WORDS[30:35] * 3, 15, 15),
        ([], 24, 24),
    ],
    ids=["as fast", "slower", "faster", "left out", "looping", "silent"],
)
def test_the_beginning_of_a_take_is_compared_with_as_much_of_its_text(said: list[str], errors: int, run: int) -> None:
    found = word_errors(" ".join(WORDS), heard(" ".join(said)), "xx", 1000.0, part=0.4)
    assert (found.errors, found.longest_run) == (errors, run)


def test_a_word_that_is_misheard_is_not_suspected_and_another_text_is() -> None:
    assert not is_suspected(compare("March", "Marge."))
    assert not is_suspected(compare("The last caller was", "The last color was."))
    assert is_suspected(compare("Please enter the channel number.", "You have no new messages."))
    assert is_suspected(compare("March", "You have no new messages."))


def test_a_sentence_that_is_missing_or_said_twice_in_a_long_text_is_suspected() -> None:
    whole, first = LONG.split(), LONG.index(" Please")
    assert is_suspected(compare(LONG, LONG[:first]))
    assert is_suspected(compare(LONG, f"{LONG} {LONG[first:]}"))
    assert not is_suspected(compare(LONG, " ".join([*whole[:3], *whole[5:]])))
