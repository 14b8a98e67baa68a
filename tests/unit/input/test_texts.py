"""How texts are written: pronunciations, and tags that the model does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloner.input.pronunciation import MOST_WORDS
from cloner.validation import MAX_TEXT
from tests.support.batch_files import problems, read, task, write


def grouped(folder: Path, texts: list[str], batch: Any = None, speaker: Any = None) -> Path:
    group = {"id": "anna", "reference": {"audio": "anna.wav", "text": "Nguyen."}, "texts": texts, "pronounce": speaker}
    return write(folder / "b.json", {"speakers": [group], "pronounce": batch})


def spoken(path: Path) -> list[str]:
    return [segment.text for speaker in read(path).speakers for segment in speaker.segments]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nguyen, nguyen and Nguyens.", "win, nguyen and Nguyens."),
        ("Ask (Nguyen)'s SQL server, or MySQL.", "Ask (win)'s sequel server, or MySQL."),
        ("C++ and C", "see plus plus and see"),
        ("我姓阮。", "我姓软。"),
        ("New York is new.", "Noo Yawk is new."),
        ("我的SQL很好。", "我的sequel很好。"),
        ("¿Nguyen? …C++!", "¿win? …see plus plus!"),
        ("\\1 Nguyen", "\\1 win"),
    ],
)
def test_whole_words_are_said_as_the_batch_says(folder: Path, text: str, expected: str) -> None:
    words = {"Nguyen": "win", "SQL": "sequel", "C": "see", "C++": "see plus plus", "阮": "软", "New": "x"}
    assert spoken(grouped(folder, [text], {**words, "New York": "Noo Yawk"})) == [expected]


def test_a_speaker_has_words_of_its_own_and_what_is_said_is_not_replaced_again(folder: Path) -> None:
    batch = {"a": "b", "b": "c"}
    path = grouped(folder, ["a b d"], batch, {"b": "d", "d": "a"})
    assert spoken(path) == ["b d a"]
    assert read(path).speakers[0].reference.text == "Nguyen."


def test_the_flat_form_may_have_pronunciations(folder: Path) -> None:
    path = write(folder / "b.json", {"tasks": [task(0, target_text="Hi, Nguyen.")], "pronounce": {"Nguyen": "win"}})
    assert spoken(path) == ["Hi, win."]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "it is a list; give words, each with how it is said"),
        ({"": "a"}, "the word '' is blank; give words, each with how it is said"),
        ({"a": " "}, "'a' is blank; give how it is said, in quotes"),
        ({"a": "b" * 201}, "'a' has 201 characters, and 200 is the most"),
        ({"a": 5}, "'a' is 5; give how it is said, in quotes"),
        ({"a": "b\x07"}, "'a' has an unusable character (U+0007) at position 2; give how it is said, in quotes"),
        ({str(word): "a" for word in range(MOST_WORDS + 1)}, "it has 10001 words, and 10000 is the most; leave some"),
    ],
)
def test_pronunciations_that_make_no_sense(folder: Path, words: object, expected: str) -> None:
    (found,) = problems(grouped(folder, ["Hello."], words))
    assert found.startswith(f"pronounce: {expected}")
    (found,) = problems(grouped(folder, ["Hello."], None, words))
    assert found.startswith(f"speakers[0].pronounce: {expected}")


def test_a_text_that_its_pronunciations_make_too_long(folder: Path) -> None:
    (found,) = problems(grouped(folder, ["a " * (MAX_TEXT // 200)], {"a": "b" * 200}))
    assert found.startswith(f"speakers[0].texts[0]: the text with its pronunciations has {MAX_TEXT // 200 * 201} ")


def test_unknown_tags_are_a_warning_at_their_first_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [
        "(excited) Hello! 3 < 5 > 2, [1], I <3 you.",
        'Wait. <break time="1s"/> [pause:0.8] [Go] on.',
        "<break/> <speak>Hi</speak> [go] [laugh] [pause for effect] [pause]",
    ]
    assert spoken(grouped(folder, texts)) == texts
    warnings = [line.removeprefix(f"{folder / 'b.json'}: ") for line in capsys.readouterr().err.splitlines()]
    right = "is not obeyed, and may be spoken; leave it out; the model's own tags are words in brackets, such as"
    expected = [
        (1, "'<break time=\"1s\"/>'"),
        (1, "'[Go]'"),
        (2, "'<speak>'"),
        (2, "'[laugh]'"),
        (2, "'[pause for effect]'"),
    ]
    assert warnings == [f"speakers[0].texts[{place}]: the tag {tag} {right} (whispering)" for place, tag in expected]


@pytest.mark.parametrize(
    "tag", ["[pause:]", "[PAUSE:long]", "[pause:-1]", "[pause:0.8s]", "[pause: 30.1]", "[pause 1]", "[pause=1]"]
)
def test_a_pause_that_is_none(folder: Path, tag: str) -> None:
    found = problems(grouped(folder, ["[pause:30] Well.", f"Wait. {tag} Go."]))
    right = "write [pause:SECONDS], 30 s at most, such as [pause:0.8]"
    assert found == [f"speakers[0].texts[1]: '{tag}' is no pause; {right}"]


def test_pauses_longer_than_a_text_may_have(folder: Path) -> None:
    most = "Well." + "[pause:30]" * 20
    found = problems(grouped(folder, [most, f"{most} Go. [pause:0.5]"]))
    expected = "the text has pauses of 600 s, and 600 is the most; shorten them, or split the text"
    assert found == [f"speakers[0].texts[1]: {expected}"]


def test_pronunciations_leave_pauses_alone(folder: Path) -> None:
    texts = ["pause [pause:0.8] pause[ Pause : 1]0.8 pause"]
    assert spoken(grouped(folder, texts, {"pause": "paws", "0": "nought"})) == [
        "paws [pause:0.8] paws[ Pause : 1]nought.8 paws"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a" * (MAX_TEXT + 1), f"has {MAX_TEXT + 1} characters, and {MAX_TEXT} is the most; shorten it"),
        ("Ding\x07", "has an unusable character (U+0007) at position 5; remove it"),
        (" ", "is blank; give the text to speak"),
    ],
)
def test_a_text_that_cannot_be_used_has_its_own_answer(folder: Path, text: str, problem: str) -> None:
    speaker = {"id": "a", "reference": {"codes": "refs/0.npy", "text": "Said."}, "texts": [text, {"text": text}]}
    assert problems(write(folder / "b.json", {"speakers": [speaker]})) == [
        f"speakers[0].texts[0]: it {problem}",
        f"speakers[0].texts[1]: text {problem}",
    ]
