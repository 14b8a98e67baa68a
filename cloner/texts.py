"""People's texts: what may be in them, and how values are quoted in messages."""

from __future__ import annotations

import re

# Half a surrogate pair (JSON can spell it) is no character either: it cannot be written as UTF-8.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNUSABLE_IN_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def prose_flaw(text: str) -> str | None:
    """What is wrong with a text that is to be spoken ("is blank"), if anything; line feeds and tabs are fine."""
    return _flaw(text, _UNUSABLE_IN_PROSE)


def name_flaw(text: str) -> str | None:
    """What is wrong with an id or a file name ("is blank"), if anything."""
    return _flaw(text, _UNUSABLE)


def _flaw(text: str, unusable: re.Pattern[str]) -> str | None:
    if not text or text.isspace():
        return "is blank"
    found = unusable.search(text)
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
