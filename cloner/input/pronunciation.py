"""Words of a batch that are to be said in another way than they are written: ``pronounce: {Nguyen: win}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cloner.errors import Problem
from cloner.input.rows import Row
from cloner.input.schema import repeated_keys
from cloner.text.pauses import outside_pauses
from cloner.validation import prose_flaw, shown

MOST_WORDS = 10_000
"""Most words of one list."""

MOST_CHARACTERS = 200
"""Most characters of a word, and of how it is said: a text of them all is not larger than memory."""

_RIGHT = "give words, each with how it is said"

_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\U0003ffff]"
"""Letters of alphabets that do not separate words by spaces, or that join endings to them: from Thai to Korean."""

LETTER = rf"(?!{_UNSPACED})\w"
"""A letter, digit or underscore of the other alphabets."""

_TOKEN = re.compile(rf"{_UNSPACED}|(?:{LETTER})+|[^\w\s]")
"""What a word begins with: one letter of such an alphabet, a run of other letters, or a sign."""


def read_pronunciations(value: object, place: str) -> tuple[dict[str, str], list[Problem]]:
    """The words of a ``pronounce`` with how they are said, and what is wrong with it."""
    if value is None:
        return {}, []
    if not isinstance(value, dict):
        return {}, [Problem(place, f"it is {shown(value)}", _RIGHT)]
    if len(value) > MOST_WORDS:
        return {}, [Problem(place, f"it has {len(value)} words, and {MOST_WORDS} is the most", "leave some out")]
    words: dict[str, str] = {}
    problems = [*repeated_keys(value, place)]
    for word, said in value.items():
        if flaw := _flaw(word):
            problems.append(Problem(place, f"the word {shown(word)} {flaw}", _RIGHT))
        elif flaw := _flaw(said):
            problems.append(Problem(place, f"{shown(word)} {flaw}", "give how it is said, in quotes"))
        else:
            words[word.strip()] = str(said)
    return words, problems


def _flaw(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is {shown(value)}"
    if len(value) > MOST_CHARACTERS:
        return f"has {len(value)} characters, and {MOST_CHARACTERS} is the most"
    return prose_flaw(value)


class Pronunciations:
    """Replaces whole words, as they are spelt, by how they are said; the longest where several begin at one place."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        beginnings: dict[str, list[str]] = {}
        for word in sorted(words, key=len, reverse=True):
            if token := _TOKEN.match(word):
                beginnings.setdefault(token[0], []).append(word)
        # By beginnings, because a regular expression of a thousand words takes milliseconds a text.
        self._patterns = {token: re.compile("|".join(map(_whole_word, found))) for token, found in beginnings.items()}

    def row(self, row: Row) -> Row | Problem:
        """The row with its text as it is said, or a problem if that is too long."""
        text = outside_pauses(row.text, self._said) if self._words else row.text
        if text == row.text:
            return row
        if flaw := prose_flaw(text):
            return Problem(row.place, f"the text with its pronunciations {flaw}", "shorten it")
        return row._replace(text=text)

    def _said(self, text: str) -> str:
        parts = []
        end = 0
        for token in _TOKEN.finditer(text):
            pattern = self._patterns.get(token[0])
            if pattern and token.start() >= end and (found := pattern.match(text, token.start())):
                parts += [text[end : token.start()], self._words[found[0]]]
                end = found.end()
        return "".join([*parts, text[end:]])


def _whole_word(word: str) -> str:
    return re.escape(word) + (rf"(?!{LETTER})" if re.fullmatch(LETTER, word[-1]) else "")
