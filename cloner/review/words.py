"""Whether a take says its text: the words that a recogniser heard in it, compared with those of the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from num2words import num2words

from cloner.checks.measures import script_of
from cloner.recogniser.whisper import HeardWord
from cloner.review.heard import WordErrors
from cloner.review.packages import review_packages
from cloner.text.pauses import without_pauses

SCRIPTS_WITHOUT_SPACES = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
"""Scripts of languages that write no spaces between words, as `script_of` has them: their characters are compared."""

NUMBERS_IN = {language: language for language in ("de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru")} | {
    "zh": "ja"  # the same characters
}
"""Languages whose numbers are compared as words, but for English, and their names for num2words."""

MOST_DIGITS = 15
"""Digits of the longest number that is compared as words; longer ones are codes."""


CHARACTERS_OF_A_WORD = 2
"""Characters that weigh as much as a word in a run of a script without spaces."""

LEAST_PACE, MOST_PACE = 0.6, 1.6
"""How many times as fast as a whole take its beginning may be said: a part of it may have longer pauses."""


def word_errors(text: str, heard: Sequence[HeardWord], language: str, end_s: float, *, part: float = 1.0) -> WordErrors:
    """Compare a text with what is heard in its take, or in the first `part` of the take, 0 to 1.

    `language` is the text's, as a code such as "en". `end_s` is where the take's sound ends, seconds: what is heard
    later is left out, because recognisers invent words in silence. Raises `MissingPackage`.
    """
    with review_packages():
        from rapidfuzz.distance import Levenshtein
    expected = _units(text, text, language)
    found = _units("".join(word.text for word in heard if word.start_s < end_s), text, language)
    expected, found = _without_splits(expected, found), _without_splits(found, expected)
    if part < 1:
        sizes = range(
            int(LEAST_PACE * part * len(expected)), min(len(expected), int(MOST_PACE * part * len(expected))) + 1
        )
        expected = expected[: min(sizes, key=lambda size: Levenshtein.distance(expected[:size], found))]
    runs = [0]  # errors in a row, 0 for what is equal
    for operation in Levenshtein.opcodes(expected, found):
        if operation.tag == "equal":
            runs.append(0)
        else:
            runs[-1] += max(operation.src_end - operation.src_start, operation.dest_end - operation.dest_start)
    return WordErrors(len(expected), sum(runs), max(runs) / (CHARACTERS_OF_A_WORD if _has_no_spaces(text) else 1))


def _has_no_spaces(text: str) -> bool:
    return script_of(text) in SCRIPTS_WITHOUT_SPACES


def _units(said: str, text: str, language: str) -> list[str]:
    """The words of what is `said`, normalised, or its characters where the script of the `text` has no spaces."""
    normalised = _normaliser(language)(without_pauses(said))
    if _has_no_spaces(text):
        return [*re.sub(r"\s", "", normalised)]
    return [word for word in normalised.split() if any(map(str.isalnum, word))]


@cache
def _normaliser(language: str) -> Callable[[str], str]:
    """What makes two spellings of the same words equal: case, punctuation, numbers, in English also contractions."""
    with review_packages():
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    if language == "en":
        english = EnglishTextNormalizer()
        # It makes digits of numbers, and may join neighbours, as in "one two three": each digit is compared alone.
        return lambda text: re.sub(r"\bone\b", "1", re.sub(r"(\d)", r" \1 ", english(text)))
    basic = BasicTextNormalizer()
    return lambda text: re.sub(r"\d+", lambda found: _number(found[0], language), basic(text))


def _number(digits: str, language: str) -> str:
    """A number as words, or in ASCII digits in languages whose words are not known."""
    if len(digits) > MOST_DIGITS:
        return digits
    number = int(digits)
    return num2words(number, lang=NUMBERS_IN[language]).replace("-", " ") if language in NUMBERS_IN else str(number)


def _without_splits(words: list[str], others: list[str]) -> list[str]:
    """`words`, with two neighbours as one where the others have them so: "log in" and "login" are the same."""
    joined: list[str] = []
    known = set(others)
    for word in words:
        if joined and joined[-1] + word in known:
            joined[-1] += word
        else:
            joined.append(word)
    return joined
