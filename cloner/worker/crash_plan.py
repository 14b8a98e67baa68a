"""In which order a chunk's segments are spoken after a crash, and which are given up: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloner.output.journal import Run

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
class CrashPlan:
    """The segments still to be spoken, each in one of these."""

    turns: Sequence[Turn]
    """First, one at a time, those that were in hand at a crash; then, together, those that were never. After them, the
    same of speakers of whom a segment has been alone at a crash: it may be their reference. Last, one at a time, those
    segments themselves: nobody else need wait for one more crash."""
    crashed: Sequence[int]
    """Given up: alone at `LONE_CRASHES` crashes."""
    is_hopeless: bool
    """Whether the engine itself seems to be broken: then none of the others is spoken."""
    needs_second_opinion: bool
    """Whether something would be given up on this worker's word alone, which has not shown since that it can speak:
    another one should try first."""


def plan_after_crashes(
    dead: Iterable[Run], todo: Mapping[int, str], generated: int, worker: str = "", *, has_others: bool = False
) -> CrashPlan:
    """Order what is `todo` of a chunk, segments with their speakers, `generated` segments being there, after the `dead`
    runs.

    A worker gives up only what it has seen crash itself, and `has_others` says whether there are others to ask: what
    rests on one worker's word, which has generated nothing since, may be that worker's own fault.
    """
    fruitless: list[Run] = []
    alone: defaultdict[int, list[Run]] = defaultdict(list)
    suspects: set[int] = set()
    for run in dead:
        suspects.update(run.started)
        for segment, was_alone in run.started.items():
            if was_alone:
                alone[segment].append(run)
        if run.generated == generated:
            fruitless.append(run)

    def own(runs: Sequence[Run]) -> int:
        return sum(run.worker == worker for run in runs)

    def only_this_worker(runs: Sequence[Run]) -> bool:
        return has_others and all(run.worker == worker and run.generated == generated for run in runs)

    lone = {segment: alone[segment] for segment in todo if alone[segment]}
    crashed = [s for s, runs in lone.items() if len(runs) >= LONE_CRASHES and own(runs) and not only_this_worker(runs)]
    # The last of them is the other worker's.
    needs_second_opinion = any(len(runs) >= LONE_CRASHES - 1 and only_this_worker(runs) for runs in lone.values())
    is_fruitless = len(fruitless) >= DEATHS and own(fruitless) >= LONE_CRASHES
    last = sorted((segment for segment in lone if segment not in crashed), key=lambda segment: -len(lone[segment]))
    doubtful = {todo[segment] for segment in lone}
    turns: list[Turn] = []
    for later in (False, True):
        some = [segment for segment, speaker in todo.items() if (speaker in doubtful) is later]
        turns += [Turn([segment], alone=True) for segment in some if segment in suspects and not alone[segment]]
        if fresh := [segment for segment in some if segment not in suspects]:
            turns.append(Turn(fresh, alone=False))
    return CrashPlan(
        turns=[*turns, *(Turn([segment], alone=True) for segment in last)],
        crashed=crashed,
        is_hopeless=is_fruitless and not only_this_worker(fruitless),
        needs_second_opinion=needs_second_opinion or (is_fruitless and only_this_worker(fruitless)),
    )
