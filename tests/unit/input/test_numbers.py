"""Numbers that a batch wants as words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloner.input.numbers import LANGUAGES, in_words
from cloner.validation import MAX_TEXT
from tests.support.batch_files import problems, read, task, write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I have 2 cats.", "I have two cats."),
        ("It was 1984, not 2024.", "It was nineteen eighty-four, not twenty twenty-four."),
        ("In 2005.", "In two thousand and five."),
        ("The 2nd of 3 days, the 21st!", "The second of three days, the twenty-first!"),
        ("Pi is 3.14.", "Pi is three point one four."),
        ("0.50 or 0", "zero point five or zero"),
        (
            "1,234,567 people (12)",
            "one million, two hundred and thirty-four thousand, five hundred and sixty-seven people (twelve)",
        ),
        ("1,000.5 m", "one thousand point five m"),
        ("It is -5 outside, and −7 above.", "It is minus five outside, and minus seven above."),
        ("A 5-year plan", "A five-year plan"),
        ("7", "seven"),
    ],
)
def test_numbers_that_stand_alone_are_written_out(text: str, expected: str) -> None:
    assert in_words(text, "en") == expected


@pytest.mark.parametrize(
    "text",
    [
        "at 12:30",
        "on 2024-05-01, 1/5/2024, 5.1.2024",
        "$5, 5€ and £3.20",
        "MP3, B2B, COVID-19, 10kg, x2",
        "version 1.2.3",
        "call 555-1234 or +44 20",
        "agent 007",
        "the 1990s and the '90s",
        "1234567890123456",
        "1,23",
        "12,34,56",
        "item_5 #5 5# a@5",
        "no digits",
        "٣",
    ],
)
def test_others_are_left_to_the_model(text: str) -> None:
    left = in_words(text, "en")
    assert left.replace("forty-four", "44").replace("twenty", "20") == text


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Es sind 3,5 von 1.000.", "Es sind drei Komma fünf von eintausend."),
        ("fr", "Le 1er des 1 000 jours, le 2e.", "Le premier des mille jours, le deuxième."),
        ("es", "El 2º de 21", "El segundo de veintiuno"),
        ("ja", "猫が3匹います。", "猫が三匹います。"),
        ("it", "Il 1º di 1.984; 3,5", "Il primo di millenovecentottantaquattro; 3,5"),
        ("ja", "1984年", "千九百八十四年"),
        ("pt_BR", "2,5 e 1º", "dois vírgula cinco e primeiro"),
        ("ru", "5 кошек", "пять кошек"),
    ],
)
def test_each_language_has_its_marks(language: str, text: str, expected: str) -> None:
    assert in_words(text, language) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_most_numbers(language: str) -> None:
    written = [*range(101), 999, 1_000, 1_001, 9_999, 12_345, 999_999, 10**6, 10**9, 10**12, 10**15 - 1]
    for number in written:
        assert not any(map(str.isdigit, in_words(str(number), language))), number
    assert in_words("x 0,05 x 0.05 x -5 x 1999", language).count("x") >= 3


def spoken(path: Path) -> dict[str, list[str]]:
    return {speaker.id: [segment.text for segment in speaker.segments] for speaker in read(path).speakers}


def groups(folder: Path, **batch: Any) -> Path:
    reference = {"codes": "refs/0.npy", "text": "I am 5."}
    anna = {"id": "anna", "reference": reference, "texts": ["I have 2."]}
    ben = {"id": "ben", "reference": reference, "texts": ["J'ai 2.", {"text": "5"}], "numbers": "fr"}
    return write(folder / "b.json", {"speakers": [anna, ben], **batch})


def test_a_batch_and_a_speaker_may_have_a_language(folder: Path) -> None:
    assert spoken(groups(folder)) == {"anna": ["I have 2."], "ben": ["J'ai deux.", "cinq"]}
    path = groups(folder, numbers="en")
    assert spoken(path) == {"anna": ["I have two."], "ben": ["J'ai deux.", "cinq"]}
    assert read(path).speakers[0].reference.text == "I am 5."


def test_the_flat_form_may_have_a_language(folder: Path) -> None:
    path = write(folder / "b.json", {"tasks": [task(0, target_text="I have 2.")], "numbers": "en"})
    assert spoken(path) == {"0": ["I have two."]}


def test_pauses_are_left(folder: Path) -> None:
    text = "5 [pause: 2 ] 5 [pause:0.8]"
    path = write(folder / "b.json", {"tasks": [task(0, target_text=text)], "numbers": "en"})
    assert spoken(path) == {"0": ["five [pause: 2 ] five [pause:0.8]"]}


def test_pronunciations_come_first(folder: Path) -> None:
    path = groups(folder, numbers="en", pronounce={"2": "a pair", "have": "own 1 or"})
    assert spoken(path)["anna"] == ["I own one or a pair."]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "english",
            "numbers: 'english' is no language in which numbers can be written out; the languages are de, en, ",
        ),
        ("pt_br", "numbers: 'pt_br' is no language in which numbers can be written out; did you mean \"pt"),
        ("", "numbers: '' is no language in which numbers can be written out; the languages are de, en, "),
        (True, "numbers: it is true; give a language, in quotes, such as 'en'"),
        (["en"], "numbers: it is a list; give a language, in quotes, such as 'en'"),
    ],
)
def test_what_is_no_language_is_a_sentence(folder: Path, value: object, expected: str) -> None:
    (found,) = problems(groups(folder, numbers=value))
    assert found.startswith(expected)
    group = {"id": "anna", "reference": {"codes": "refs/0.npy", "text": "Hi."}, "texts": ["One."], "numbers": value}
    (found,) = problems(write(folder / "b.json", {"speakers": [group]}))
    assert found.startswith(f"speakers[0].{expected}")


def test_a_text_that_its_numbers_make_too_long(folder: Path) -> None:
    path = write(folder / "b.json", {"tasks": [task(0, target_text="7 " * (MAX_TEXT // 2))], "numbers": "en"})
    (found,) = problems(path)
    assert found.startswith(f"tasks[0]: the text with its numbers in words has {MAX_TEXT // 2 * 6} characters, and ")
