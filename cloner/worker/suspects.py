"""In which order a chunk's segments are spoken after a crash, and which are given up: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloner.journal import Run

LONE_CRASHES = 3
"""Crashes that a segment may be alone at, before it is given up."""

DEATHS = 10
"""Deaths in a row, no segment being generated between them, after which it is the engine and not a segment. Each costs
a load of the model."""


@dataclass(frozen=True)
class Turn:
    """What the engine is given at once."""

    segments: Sequence[int]
    alone: bool


@dataclass(frozen=True)
class Verdict:
    """The segments still to be spoken, each in one of these."""

    turns: Sequence[Turn]
    """First, one at a time, those that were in hand at a crash; then, together, those that never were; last, again one
    at a time, those that have been alone at a crash: the others need not wait for one more."""
    crashed: Sequence[int]
    """Given up: alone at `LONE_CRASHES` crashes."""
    is_hopeless: bool
    """Whether the engine itself seems to be broken: then none of the others is spoken."""


def judge(dead: Iterable[Run], todo: Sequence[int], generated: int) -> Verdict:
    """Order what is `todo` of a chunk, `generated` segments being there, after the `dead` runs."""
    suspects: set[int] = set()
    alone: Counter[int] = Counter()
    vain = 0
    for run in dead:
        suspects.update(run.started)
        alone.update(segment for segment, was_alone in run.started.items() if was_alone)
        vain += run.generated == generated
    fresh = [segment for segment in todo if segment not in suspects]
    first = [segment for segment in todo if segment in suspects and not alone[segment]]
    last = [segment for segment in todo if 0 < alone[segment] < LONE_CRASHES]
    last.sort(key=lambda segment: -alone[segment])
    return Verdict(
        turns=[
            *(Turn([segment], alone=True) for segment in first),
            *([Turn(fresh, alone=False)] if fresh else []),
            *(Turn([segment], alone=True) for segment in last),
        ],
        crashed=[segment for segment in todo if alone[segment] >= LONE_CRASHES],
        is_hopeless=vain >= DEATHS,
    )
