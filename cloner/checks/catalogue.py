"""The checks: each compares one figure of a take with a limit, and has a sentence for people.

A score is larger the worse the take is; above its limit the check fails. The limits are those with which the figures in
`ops/BENCHMARKS.md` were measured; `CLONER_CHECK_LIMITS` replaces some of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import exp
from typing import ClassVar

from cloner.checks.measures import Measures
from cloner.checks.usual import Usual, certainty

SHORTNESS_WEIGHT = 1.5
"""What a take's shortness for its text counts, beside how loudly it ends, both in standard deviations: a cut may fall
between two words, and then only the shortness tells."""

UNCERTAIN_S = 0.6
"""Seconds of a take whose pace, and mean change of the sounds, have twice the variance that they have of a long one: a
word alone has few sounds."""

MOST_DECIMALS = 6
"""Of a score in a sentence."""

SLOW_S = 0.5
"""Seconds that are added to what a text usually takes before a take is called too slow: letters that are spelled, as in
"USB", take three times as long as those of words."""


def beyond(score: float, limit: float, decimals: int) -> str:
    """A score that is above its limit, with as many decimals as show that, `decimals` at least."""
    while decimals < MOST_DECIMALS and round(score, decimals) <= limit:
        decimals += 1
    return f"{score:.{decimals}f}"


class LimitedCheck(ABC):
    """One thing that may be wrong with a take, which has a score: above a limit, the check fails."""

    name: ClassVar[str]
    default: ClassVar[float]
    """The limit, unless another is set."""

    def __init__(self, limit: float | None = None) -> None:
        self.limit = self.default if limit is None else limit


class Check(LimitedCheck):
    """One thing that is measured, without a model."""

    needs_sound: ClassVar[bool] = True
    """Whether a take without sound, or with samples that are not numbers, gets no score."""

    @abstractmethod
    def score(self, take: Measures, usual: Usual) -> float:
        """The figure that is compared with the limit."""

    @abstractmethod
    def sentence(self, score: float) -> str:
        """What is wrong with a take that has this score."""


class NotANumber(Check):
    """Samples that are NaN, infinity or far beyond full scale; in percent."""

    name, default, needs_sound = "not_a_number", 0.0, False

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002 - as others have it
        return 100 * take.not_numbers

    def sentence(self, score: float) -> str:
        return f"{beyond(score, self.limit, 2)}% of the samples are NaN, infinity or far beyond full scale"


class CutOff(Check):
    """The model was stopped at its limit of frames: 1, else 0."""

    name, default, needs_sound = "cut_off", 0.0, False

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return float(take.truncated)

    def sentence(self, score: float) -> str:  # noqa: ARG002
        return "it reached its limit of frames before it was at its end"


class TooQuiet(Check):
    """Level of the speech, in dB below full scale."""

    name, default, needs_sound = "too_quiet", 42.0, False

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return -take.silence.level_db if not take.not_numbers else 0.0

    def sentence(self, score: float) -> str:
        return f"it is nearly mute: {beyond(score, self.limit, 0)} dB below full scale (at most {self.limit:g})"


class Level(Check):
    """Difference to the level of the speaker's other takes, in dB."""

    name, default = "level", 12.0

    def score(self, take: Measures, usual: Usual) -> float:
        return 0.0 if usual.level_db is None else abs(take.silence.level_db - usual.level_db)

    def sentence(self, score: float) -> str:
        shown = beyond(score, self.limit, 0)
        return f"its level differs by {shown} dB from the speaker's other takes (at most {self.limit:g})"


class Clipping(Check):
    """Samples that are cut at the take's peak, in percent."""

    name, default = "clipping", 0.1

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return 100 * take.clipped

    def sentence(self, score: float) -> str:
        return f"{beyond(score, self.limit, 2)}% of the samples are clipped (at most {self.limit:g}%)"


class TooLittleSound(Check):
    """The part of the take that is silent, in percent."""

    name, default = "too_little_sound", 80.0

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return 100 * take.silence.silent

    def sentence(self, score: float) -> str:
        return f"{beyond(score, self.limit, 0)}% of it is silent (at most {self.limit:g}%)"


class SilenceAtStart(Check):
    """Silence before the first sound, in seconds."""

    name, default = "silence_at_start", 1.0

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return take.silence.start_s

    def sentence(self, score: float) -> str:
        return f"it begins with {beyond(score, self.limit, 1)} s of silence (at most {self.limit:g})"


class SilenceAtEnd(Check):
    """Silence after the last sound, in seconds."""

    name, default = "silence_at_end", 1.0

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return take.silence.end_s

    def sentence(self, score: float) -> str:
        return f"it ends with {beyond(score, self.limit, 1)} s of silence (at most {self.limit:g})"


class Pause(Check):
    """The longest silence between sounds, less the longest that the text asks for, in seconds."""

    name, default = "pause", 1.5

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return max(0.0, take.silence.pause_s - take.asked_pause_s)

    def sentence(self, score: float) -> str:
        return f"it has an unasked pause of {beyond(score, self.limit, 1)} s (at most {self.limit:g})"


class Hole(Check):
    """The longest digital silence that begins or ends in the midst of sound, in seconds."""

    name, default = "hole", 0.1

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return take.silence.hole_s

    def sentence(self, score: float) -> str:
        return f"{beyond(score, self.limit, 1)} s of it are missing: zeros in the midst of sound"


class Loop(Check):
    """How like each other two neighbouring stretches are, 0 to 1."""

    name, default = "loop", 0.82

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return take.loop

    def sentence(self, score: float) -> str:
        shown = beyond(score, self.limit, 2)
        return f"it repeats itself: two stretches, one after the other, are alike by {shown} (at most {self.limit:g})"


class LoopInCodes(Check):
    """Codes that come again at once in the same order, in seconds."""

    name, default = "loop_in_codes", 0.5

    def score(self, take: Measures, usual: Usual) -> float:  # noqa: ARG002
        return take.repeated_s

    def sentence(self, score: float) -> str:
        shown = beyond(score, self.limit, 1)
        return f"the model repeats itself: {shown} s of its codes come again at once (at most {self.limit:g})"


class CutEnd(Check):
    """How loudly the take ends, and how short it is for its text, in the standard deviations of the speaker's takes."""

    name, default = "cut_end", 4.6

    def score(self, take: Measures, usual: Usual) -> float:
        loudness = (take.silence.end_db - usual.end_db.centre) / usual.end_db.spread
        return loudness + SHORTNESS_WEIGHT * _shortness(take, usual)

    def sentence(self, score: float) -> str:
        shown = beyond(score, self.limit, 1)
        return (
            f"its last word may be cut: it ends too loudly or is too short for its text, by {shown} deviations from"
            f" the speaker's other takes (at most {self.limit:g})"
        )


class TooFast(Check):
    """How fast the sounds change, and how short the take is for its text, in the standard deviations of the speaker's
    takes."""

    name, default = "too_fast", 4.2

    def score(self, take: Measures, usual: Usual) -> float:
        change = (take.change - usual.change.centre) / usual.change.spread
        return _certainty(take, usual) * change + _shortness(take, usual)

    def sentence(self, score: float) -> str:
        shown = beyond(score, self.limit, 1)
        return f"it is too fast, by {shown} deviations from the speaker's other takes (at most {self.limit:g})"


class TooSlow(Check):
    """How much longer the speech is than its text usually takes, in percent of that and half a second."""

    name, default = "too_slow", 150.0

    def score(self, take: Measures, usual: Usual) -> float:
        usual_s = _usual_s(take, usual)
        return 100 * (take.silence.speech_s - usual_s) / (usual_s + SLOW_S)

    def sentence(self, score: float) -> str:
        shown = beyond(score, self.limit, 0)
        return (
            f"it is longer than its text usually takes, by {shown}% of that and half a second (at most {self.limit:g}%)"
        )


def _shortness(take: Measures, usual: Usual) -> float:
    """By how many deviations the speech is too short for its text; 0 if it is not."""
    return _certainty(take, usual) * max(0.0, (usual.pace.centre - take.pace) / usual.pace.spread)


def _certainty(take: Measures, usual: Usual) -> float:
    """What a deviation counts, 0 to 1: less in a take of a short text."""
    return certainty(_usual_s(take, usual), UNCERTAIN_S)


def _usual_s(take: Measures, usual: Usual) -> float:
    """Seconds of speech that the take's text usually takes."""
    return take.silence.speech_s / exp(take.pace - usual.pace.centre)


CHECKS: tuple[type[Check], ...] = (
    NotANumber,
    CutOff,
    TooQuiet,
    TooLittleSound,
    Level,
    Clipping,
    SilenceAtStart,
    SilenceAtEnd,
    Pause,
    Hole,
    Loop,
    LoopInCodes,
    CutEnd,
    TooFast,
    TooSlow,
)


COMPARING = frozenset(check.name for check in (Level, CutEnd, TooFast, TooSlow))
"""The checks that compare a take with others: without the takes that they fail, the others would seem to vary less than
they do. A take that fails another check says nothing of what is usual."""
