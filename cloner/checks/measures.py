"""What is measured of a take, once, for all checks. A take is one try at one text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import log
from unicodedata import name

import numpy as np

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE, Audio, Codes
from cloner.checks.codes import repeated_seconds
from cloner.checks.levels import DIGITAL_SILENCE_DB, NO_SOUND, Silence, find_silence, frame_levels
from cloner.checks.spectrum import change, loop_likeness, spectra
from cloner.text.length import estimated_frames
from cloner.text.pauses import between_pauses, without_pauses

TEXT_OFFSET_S = 0.16
"""Seconds that a text takes beside those of its characters: a word alone is said slowly. They are not added to those of
speech: short takes that are too fast would then seem less so."""

MOST = np.float32(1e6)
"""Samples beyond so many times full scale are nonsense, and their squares would be too large for 32 bits."""

TOP = 0.99
"""Samples above this part of the take's peak are at its top."""

_NOT_SPOKEN = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class Take:
    """One try at one text, as an engine or a file gives it."""

    samples: Audio
    """Mono, ``[samples]``, full scale being 1."""
    rate: int
    """Samples a second."""
    text: str
    codes: Codes | None = None
    """What the samples were decoded from, where that is known."""
    truncated: bool = False
    """Whether it reached its limit of frames before the model ended it."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of a take."""

    script: str
    """The script of the text, such as "LATIN" or "CJK"; what is usual is learnt for each."""
    truncated: bool
    not_numbers: float
    """The part of the samples that is NaN, infinity or beyond `MOST`, 0 to 1. If it is not 0, `silence` and
    what follows are those of a take without sound."""
    asked_pause_s: float
    """Seconds of the longest pause that the text asks for, as in ``[pause:2]``."""
    silence: Silence
    clipped: float
    """The part of the samples that is in a row of three or more at the take's top, 0 to 1."""
    pace: float
    """Logarithm of the seconds of speech, compared to those that the text is likely to take; 0 without sound."""
    change: float
    """As `cloner.checks.spectrum.change`."""
    loop: float
    """As `cloner.checks.spectrum.loop_likeness`."""
    repeated_s: float
    """As `cloner.checks.codes.repeated_seconds`."""

    @property
    def has_sound(self) -> bool:
        """Whether anything else but `not_numbers` could be measured."""
        return self.silence.level_db > DIGITAL_SILENCE_DB


def measure(take: Take) -> Measures:
    """Measure a take: under 1 ms for a second of audio at 44.1 kHz. Its samples are not changed."""
    not_numbers = _not_numbers(take.samples)
    silence = NO_SOUND if not_numbers else find_silence(frame_levels(take.samples, take.rate))
    sound = silence is not NO_SOUND
    course = spectra(take.samples, take.rate) if sound else None
    return Measures(
        script=script_of(take.text),
        truncated=take.truncated,
        not_numbers=not_numbers,
        asked_pause_s=max(seconds for _, seconds in between_pauses(take.text)),
        silence=silence,
        clipped=_clipped(take.samples) if sound else 0.0,
        pace=_pace(silence.speech_s, take.text) if sound else 0.0,
        change=change(course) if course else 0.0,
        loop=loop_likeness(course) if course else 0.0,
        repeated_s=0.0 if take.codes is None else repeated_seconds(take.codes),
    )


def _not_numbers(samples: Audio) -> float:
    if samples.min(initial=0) >= -MOST and samples.max(initial=0) <= MOST:  # false for NaN
        return 0.0
    return 1 - float((np.abs(samples) <= MOST).mean())


def script_of(text: str) -> str:
    """The script that most letters and digits of the text are in, by their Unicode names; empty if it has none."""
    names = Counter(name(letter, "").partition(" ")[0] for letter in text if letter.isalnum())
    return max(names, key=lambda script: (names[script], script), default="")


def _pace(speech_s: float, text: str) -> float:
    words = _NOT_SPOKEN.sub(" ", without_pauses(text)).strip()
    text_s = estimated_frames(words) * FRAME_SAMPLES / SAMPLE_RATE
    return log(speech_s / (text_s + TEXT_OFFSET_S))


def _clipped(samples: Audio) -> float:
    size = np.abs(samples)
    top = size >= size.max() * np.float32(TOP)
    return float((top[:-2] & top[1:-1] & top[2:]).mean()) if len(top) > 2 else 0.0
