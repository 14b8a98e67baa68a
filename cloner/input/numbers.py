"""Numbers of a batch's texts as words of one language: ``numbers: en``.

Written out are numbers that stand alone: whole ones, decimals, ordinals with their ending (``2nd``) and, of four
digits, years. What has letters, signs or further digits attached is left to the model: times, dates, amounts of money,
telephone numbers, versions, codes.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache, lru_cache

from num2words import num2words

from cloner.errors import Problem
from cloner.input.pronunciation import LETTER
from cloner.input.rows import Row
from cloner.input.schema import right_name
from cloner.text.pauses import outside_pauses
from cloner.validation import prose_flaw, shown

MOST_DIGITS = 15
"""Digits of the longest number that is written out; longer ones are codes."""

YEARS = range(1100, 2100)
"""Numbers of four digits that are said as years, as in "nineteen eighty-four"."""

LANGUAGES = ("de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "pt_BR", "ru")
"""Those of the model for which num2words was tested. Of its others, some are wrong (1984 in Arabic), or never return
(a billion in Amharic)."""

_DECIMAL_POINT = {"en", "ja", "ko"}
"""Languages that write 1,234.5; the others write 1.234,5 or 1 234,5."""

_WITHOUT_DECIMALS = {"it"}
"""Languages of which num2words drops what follows the decimal mark."""

_WITH_YEARS = {"de", "en", "nl"}
"""Languages that say 1984 in another way as a year. In Japanese, num2words counts from an emperor's first year."""

_ORDINAL_ENDINGS = {
    "en": "st|nd|rd|th",
    "es": "[ºª°]",
    "fr": "ers?|res?|ère|nde?|e|ème",
    "it": "[ºª°]",
    "nl": "e|de|ste",
    "pt": "[ºª°]",
    "pt_BR": "[ºª°]",
}

_ATTACHED_BEFORE = r"[.,:/\\$€£¥₹₽+#@°'’_=*^~−-]"
_ATTACHED_AFTER = r"[.,:/\\+'’*^~=–—-]?\d|[$€£¥₹₽°_@#/\\]|[-–]\w\d"


def read_numbers(value: object, place: str) -> tuple[str | None, list[Problem]]:
    """The language of a ``numbers``, None if there is none, and what is wrong with it."""
    if value is None or (isinstance(value, str) and value in LANGUAGES):
        return value, []
    if not isinstance(value, str):
        return None, [Problem(place, f"it is {shown(value)}", "give a language, in quotes, such as 'en'")]
    right = right_name("languages", value[:20], LANGUAGES)
    return None, [Problem(place, f"{shown(value)} is no language in which numbers can be written out", right)]


def with_numbers_in_words(row: Row, language: str) -> Row | Problem:
    """The row with the numbers of its text as words, or a problem if the text is too long then."""
    text = outside_pauses(row.text, lambda part: in_words(part, language))
    if text == row.text:
        return row
    if flaw := prose_flaw(text):
        return Problem(row.place, f"the text with its numbers in words {flaw}", "shorten it")
    return row._replace(text=text)


def in_words(text: str, language: str) -> str:
    """`text` with its numbers as words."""
    if not any(map(str.isdigit, text)):
        return text
    return _pattern(language).sub(lambda found: _said(found[1] or "", found[2], found[3] or "", language), text)


@cache
def _pattern(language: str) -> re.Pattern[str]:
    """Finds a number's sign, its digits with their marks, and its ending if it is an ordinal."""
    point, mark = (r"\.", ",") if language in _DECIMAL_POINT else (",", "[.\u00a0\u202f ]")
    digits = rf"[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+(?:{point}[0-9]+)?|[0-9]+(?:{point}[0-9]+)?"
    ending = _ORDINAL_ENDINGS.get(language, "(?!)")
    before = rf"(?:(?<!\S)([-−])|(?<!{LETTER})(?<!{_ATTACHED_BEFORE}))"
    return re.compile(rf"{before}({digits})({ending})?(?!{LETTER})(?!{_ATTACHED_AFTER})")


@lru_cache(maxsize=2**16)
def _said(sign: str, digits: str, ending: str, language: str) -> str:
    written = f"{sign}{digits}{ending}"
    point, marks = (".", ",") if language in _DECIMAL_POINT else (",", ".\u00a0\u202f ")
    number = digits.translate(dict.fromkeys(map(ord, marks))).replace(point, ".")
    whole = number.partition(".")[0]
    is_code = len(number) > MOST_DIGITS or (len(whole) > 1 and whole.startswith("0"))
    if is_code or ("." in number and (ending or language in _WITHOUT_DECIMALS)):
        return written
    kind = "cardinal"
    if ending:
        kind = "ordinal"
    elif language in _WITH_YEARS and not sign and len(digits) == 4 and digits.isdigit() and int(digits) in YEARS:
        kind = "year"
    try:
        value = Decimal(number) if "." in number else int(number)
        return str(num2words(-value if sign else value, lang=language, to=kind))
    except Exception:  # noqa: BLE001 - a KeyError, ValueError or others for what a language's module cannot say
        return written
