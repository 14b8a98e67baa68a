"""Pauses that a text asks for: ``[pause:0.8]``, silence of that many seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

MOST_PAUSE_S = 30.0
"""Seconds of the longest pause."""

MOST_PAUSES_S = 600.0
"""Seconds of all pauses of a text: without a limit, 100 KB of text would be silence for days."""

_PAUSE = re.compile(r"\[\s*pause\s*:\s*(\d{1,3}(?:\.\d{1,6})?)\s*\]", re.IGNORECASE)
_LIKE_PAUSE = re.compile(r"\[\s*pause\s*(?:[:=]|\s[-+.\d])[^\[\]]*\]", re.IGNORECASE)
"""Not ``[pause]`` or ``[pause for effect]``, which may be tags of another program."""


def has_pause(text: str) -> bool:
    """Whether a text asks for a pause."""
    return "[" in text and _PAUSE.search(text) is not None


def pauses_s(text: str) -> float:
    """Seconds of all pauses that a text asks for."""
    return sum(seconds for _, seconds in between_pauses(text)) if "[" in text else 0.0


def without_pauses(text: str) -> str:
    """The text with a space for each pause."""
    return _PAUSE.sub(" ", text) if "[" in text else text


def outside_pauses(text: str, change: Callable[[str], str]) -> str:
    """The text with what stands between its pauses changed."""
    if not has_pause(text):
        return change(text)
    parts = []
    end = 0
    for found in _PAUSE.finditer(text):
        parts += [change(text[end : found.start()]), found[0]]
        end = found.end()
    return "".join([*parts, change(text[end:])])


def between_pauses(text: str) -> Iterator[tuple[str, float]]:
    """What stands before each pause and behind the last, and the seconds of the pause after it, 0 after the last."""
    parts = _PAUSE.split(text)
    for place in range(0, len(parts), 2):
        yield parts[place], float(parts[place + 1]) if place + 1 < len(parts) else 0.0


def misspelt_pause(text: str) -> str | None:
    """The first tag in a text that is like a pause and is none, or is longer than `MOST_PAUSE_S`."""
    if "[" not in text:
        return None
    for found in _LIKE_PAUSE.finditer(text):
        pause = _PAUSE.fullmatch(found[0])
        if pause is None or float(pause[1]) > MOST_PAUSE_S:
            return found[0]
    return None
