"""Words of a batch that are to be said in another way than they are written: ``pronounce: {Nguyen: win}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cloner.errors import Problem
from cloner.input.rows import Row
from cloner.input.schema import repeated_keys
from cloner.validation import prose_flaw, shown

MOST_WORDS = 10_000
"""Most words of one list."""

MOST_CHARACTERS = 200
"""Most characters of a word, and of how it is said: a text of them all is not larger than memory."""

_RIGHT = "give words, each with how it is said"

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\U0003ffff]")
"""Letters of alphabets that do not separate words by spaces, or that join endings to them: from Thai to Korean."""


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
            words[word] = str(said)
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
        longest_first = sorted(words, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_whole_word, longest_first)))

    def row(self, row: Row) -> Row | Problem:
        """The row with its text as it is said, or a problem if that is too long."""
        if not self._words:
            return row
        text = self._pattern.sub(lambda found: self._words[found[0]], row.text)
        if flaw := prose_flaw(text):
            return Problem(row.place, f"the text with its pronunciations {flaw}", "shorten it")
        return row._replace(text=text)


def _whole_word(word: str) -> str:
    before = "" if _UNSPACED.match(word[0]) else r"(?<!\w)"
    after = "" if _UNSPACED.match(word[-1]) else r"(?!\w)"
    return f"{before}{re.escape(word)}{after}"
