"""People's texts: what may be in them, and how values are quoted in messages."""

from __future__ import annotations

import re

MAX_TEXT = 32_768
"""Characters of a text: more than a model's 8,192 positions hold, at four to a token, with the speech after it."""

MAX_NAME = 4096
"""Characters of an id or a file name: the longest path that Linux takes."""

# Half a surrogate pair (JSON can spell it) is no character either: it cannot be written as UTF-8.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNUSABLE_IN_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def prose_flaw(text: str) -> str | None:
    """What is wrong with a text that is to be spoken ("is blank"), if anything; line feeds and tabs are fine."""
    return _flaw(text, _UNUSABLE_IN_PROSE, MAX_TEXT)


def name_flaw(text: str) -> str | None:
    """What is wrong with an id or a file name ("is blank"), if anything."""
    return _flaw(text, _UNUSABLE, MAX_NAME)


def _flaw(text: str, unusable: re.Pattern[str], most: int) -> str | None:
    if not text or text.isspace():
        return "is blank"
    if len(text) > most:
        return f"has {len(text)} characters, and {most} is the most"
    found = None if text.isprintable() else unusable.search(text)  # the first is quick, and nearly always enough
    if found:
        return f"has an unusable character (U+{ord(found[0]):04X}) at position {found.start() + 1}"
    return None


def shown(value: object) -> str:
    """`value` as its file spells it, more or less; short, on one line and fit for any terminal."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case None:
            return "null"
        case bool():
            return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
