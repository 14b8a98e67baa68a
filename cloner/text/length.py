"""How long a text takes to speak, estimated from its characters."""

from __future__ import annotations

import re

from cloner.audio import FRAME_SAMPLES, FRAMES_PER_CHARACTER, SAMPLE_RATE
from cloner.batch import Generation
from cloner.text.pauses import has_pause, without_pauses

FRAMES_PER_LONG_CHARACTER = 4.5
"""Frames of a Chinese, Japanese or Korean character, which is a syllable or more, and of a digit, which is a word:
about five a second."""

SHORT_CHARACTERS_PER_TOKEN = 4
"""Characters of a token, of scripts such as Latin; each of the others is one."""

_LONG_CHARACTERS = re.compile(
    "[\\d\u1100-\u11ff\u3040-\u30ff\u3100-\u318f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)


def estimated_frames(text: str) -> float:
    """Frames that a text is likely to take."""
    short = _short_characters(text)
    return short * FRAMES_PER_CHARACTER + (len(text) - short) * FRAMES_PER_LONG_CHARACTER


def estimated_tokens(text: str) -> float:
    """Tokens that a text is likely to take in the model's prompt."""
    short = _short_characters(text)
    return short / SHORT_CHARACTERS_PER_TOKEN + len(text) - short


def _short_characters(text: str) -> int:
    return len(_LONG_CHARACTERS.sub("", text))


def piece_frames(generation: Generation) -> float:
    """Frames that a piece of a long text may be estimated at."""
    return generation.piece_s * SAMPLE_RATE / FRAME_SAMPLES


def is_split(text: str, generation: Generation) -> bool:
    """Whether a text is generated in pieces: it is long, or asks for a pause."""
    return has_pause(text) or is_long(text, generation)


def is_long(text: str, generation: Generation) -> bool:
    """Whether a text is longer than a piece may be. None is if all segments have a fixed length."""
    most = piece_frames(generation)
    # A batch may have a million texts, and a regular expression takes 10 us for one.
    if len(text) * FRAMES_PER_LONG_CHARACTER <= most or generation.fixed_length or _most_frames(text) <= most:
        return False
    return estimated_frames(text) > most


def _most_frames(text: str) -> float:
    """A bound of `estimated_frames`: long characters are digits, or take several bytes."""
    data = text.encode("utf-8", "surrogatepass")
    digits = len(data) - len(data.translate(None, b"0123456789"))
    long = digits + len(data) - len(text)
    return len(text) * FRAMES_PER_CHARACTER + long * (FRAMES_PER_LONG_CHARACTER - FRAMES_PER_CHARACTER)


def is_speakable(text: str) -> bool:
    """Whether a text has a letter or a digit, in any script: emoji, punctuation and pauses alone are not spoken."""
    return any(map(str.isalnum, without_pauses(text)))
