"""What is usual for a speaker in a language, learnt from the takes themselves: most of them are right.

Medians do not follow the few takes that went wrong. Of each measure the spread is learnt on the side on which it would
be wrong, since the sides differ: a take may end as softly as it likes. Where there are few takes, what is usual for all
speakers (`PRIOR`) has more weight.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from cloner.checks.measures import Measures
from cloner.validation import primary_language

PRIOR_TAKES = 8
"""The weight of `PRIOR`, in takes."""

MOST_TAKES = 256
"""The last takes of a speaker that are learnt from: more make medians hardly better, and a batch may have a million."""

MEASURES = 4
"""Numbers that are kept of a take, 32 bytes."""

NEWS = 1.05
"""How many times as many takes there are when what is usual is learnt again."""

MAD_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation, divided by the median of its absolute deviations."""


@dataclass(frozen=True, slots=True)
class Typical:
    """A measure's median, and its standard deviation on the side on which it would be wrong."""

    centre: float
    spread: float


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for a speaker in a language and a script."""

    level_db: float | None
    """None without a take."""
    end_db: Typical
    pace: Typical
    """Spread: of faster takes."""
    change: Typical


PRIOR = Usual(level_db=None, end_db=Typical(-45, 5), pace=Typical(0.0, 0.18), change=Typical(0.41, 0.08))
"""What is usual in the five languages in `ops/BENCHMARKS.md`; the spreads are those of all together."""

LEAST = Usual(level_db=None, end_db=Typical(0, 3.5), pace=Typical(0, 0.08), change=Typical(0, 0.03))
"""The least spreads: takes that are all alike, as of a model of tones, would have none."""


_Key = tuple[str, str, str]
"""Speaker, language, script."""


def certainty(seconds: float, uncertain_s: float) -> float:
    """What a deviation counts in a take of so many seconds, 0 to 1: in `uncertain_s` of it a measure has twice the
    variance that it has in a long one."""
    return sqrt(seconds / (seconds + uncertain_s))


class History:
    """The takes of each speaker so far, of each language and script apart. `add` may be called while `usual` is in use,
    from one thread.

    A language is empty if it is not known. Subtags do not count: what is usual in "pt-BR" and "pt-PT" is learnt
    together.
    """

    def __init__(self) -> None:
        self._takes: defaultdict[_Key, array[float]] = defaultdict(lambda: array("d"))
        self._usual: dict[_Key, tuple[int, Usual]] = {}
        """What was usual, and of how many takes it was learnt."""
        self._counts: Counter[_Key] = Counter()

    def add(self, speaker: str, take: Measures, language: str = "") -> None:
        """Learn from a take; nothing from one without sound."""
        if take.has_sound:
            key = speaker, primary_language(language), take.script
            takes, place = self._takes[key], self._counts[key] % MOST_TAKES * MEASURES
            takes[place : place + MEASURES] = array(
                "d", (take.silence.level_db, take.silence.end_db, take.pace, take.change)
            )
            self._counts[key] += 1

    def usual(self, speaker: str, script: str, language: str = "") -> Usual:
        """What is usual for the speaker's takes of texts in this language and script. It is learnt again when there are
        `NEWS` more takes: medians of hundreds hardly change with one, and take longer than a take's checks."""
        key = speaker, primary_language(language), script
        count = self._counts[key]
        learnt, usual = self._usual.get(key, (0, PRIOR))
        if count > learnt * NEWS:
            usual = _usual(self._takes[key], count)
            self._usual[key] = count, usual
        return usual


def _usual(takes: array[float], count: int) -> Usual:
    """What is usual by the last of `count` takes."""
    levels, ends, paces, changes = np.array(takes).reshape(-1, MEASURES).T
    share = count / (count + PRIOR_TAKES)
    return Usual(
        level_db=float(np.median(levels)),
        end_db=_typical(ends, 1, share, PRIOR.end_db, LEAST.end_db),
        pace=_typical(paces, -1, share, PRIOR.pace, LEAST.pace),
        change=_typical(changes, 1, share, PRIOR.change, LEAST.change),
    )


def _typical(values: NDArray[np.float64], side: int, share: float, prior: Typical, least: Typical) -> Typical:
    """The median, and the spread of the values on that side of it: 1 above, -1 below; `share` is their weight beside
    that of the prior."""
    median = np.median(values)
    spread = MAD_TO_DEVIATION * np.median(np.abs(values[side * (values - median) >= 0] - median))
    return Typical(
        centre=float(share * median + (1 - share) * prior.centre),
        spread=max(least.spread, float(share * spread + (1 - share) * prior.spread)),
    )
