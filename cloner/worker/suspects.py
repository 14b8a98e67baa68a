"""In which order a chunk's segments are spoken after a crash, and which are given up: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloner.journal import Run

LONE_CRASHES = 3
"""Crashes that a segment may be alone at, before it is given up."""

DEATHS = 10
"""Deaths in a row, no segment being generated between them, after which it is the engine and not a segment: as many as
three segments in a row take, that end every process they come to."""


@dataclass(frozen=True)
class Turns:
    """The segments still to be spoken, each in one of these.

    First, one at a time, those that were in hand at a crash; then, together, those that never were, so that they do not
    wait for a crash to come; last, again one at a time, those that have been alone at one.
    """

    first: Sequence[int]
    together: Sequence[int]
    last: Sequence[int]
    crashed: Sequence[int]
    """Given up: alone at `LONE_CRASHES` crashes."""
    is_hopeless: bool
    """Whether the engine itself seems to be broken: then none of the others is spoken."""


def take_turns(dead: Iterable[Run], todo: Sequence[int], generated: int) -> Turns:
    """Order what is `todo` of a chunk, `generated` segments being there, after the `dead` runs."""
    suspects: set[int] = set()
    alone: Counter[int] = Counter()
    vain = 0
    for run in dead:
        suspects.update(run.started)
        alone.update(segment for segment, was_alone in run.started.items() if was_alone)
        vain += run.generated == generated
    tried = [segment for segment in todo if 0 < alone[segment] < LONE_CRASHES]
    return Turns(
        first=[segment for segment in todo if segment in suspects and not alone[segment]],
        together=[segment for segment in todo if segment not in suspects],
        last=sorted(tried, key=lambda segment: -alone[segment]),
        crashed=[segment for segment in todo if alone[segment] >= LONE_CRASHES],
        is_hopeless=vain >= DEATHS,
    )
