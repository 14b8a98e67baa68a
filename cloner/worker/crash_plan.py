"""In which order a chunk's segments are generated after crashes, and which are given up. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloner.output.journal import Run

MAX_LONE_CRASHES = 3
"""Crashes with a segment alone in the engine, after which the segment is given up."""

MAX_FRUITLESS_CRASHES = 10
"""Crashes in a row without a segment generated in between, after which the engine is at fault and not a segment. Each
costs a load of the model."""


@dataclass(frozen=True)
class Turn:
    """Segments that the engine gets at once."""

    segments: Sequence[int]
    alone: bool


@dataclass(frozen=True)
class CrashPlan:
    """How the pending segments of a chunk are generated."""

    turns: Sequence[Turn]
    """First, one at a time, the segments that were in flight at a crash; then the others together. After them, the same
    for speakers with a segment that was alone at a crash, as their reference may be the cause. Last, one at a time,
    those segments themselves, so that no other segment waits for one more crash."""
    crashed: Sequence[int]
    """Segments that are given up, after `MAX_LONE_CRASHES` crashes with each alone."""
    is_hopeless: bool
    """Whether the engine itself seems to be broken: then all segments are given up."""
    needs_second_opinion: bool
    """True if only this worker saw the crashes and it has generated nothing since: another one should try first."""


def plan_after_crashes(
    crashed_runs: Iterable[Run],
    pending: Mapping[int, str],
    generated: int,
    worker: str = "",
    *,
    has_others: bool = False,
) -> CrashPlan:
    """Plan how to generate the `pending` segments of a chunk (segment -> speaker) after its `crashed_runs`.

    `generated` is the number of segments of the chunk that are generated. A worker gives up only segments that crashed
    on it as well. `has_others` tells whether other workers are alive: crashes that only one worker saw, which has
    generated nothing since, may be that worker's own fault.
    """
    fruitless: list[Run] = []
    alone: defaultdict[int, list[Run]] = defaultdict(list)
    suspects: set[int] = set()
    for run in crashed_runs:
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

    lone = {segment: alone[segment] for segment in pending if alone[segment]}
    crashed = [
        s for s, runs in lone.items() if len(runs) >= MAX_LONE_CRASHES and own(runs) and not only_this_worker(runs)
    ]
    # The last of these crashes is left to the other worker.
    needs_second_opinion = any(len(runs) >= MAX_LONE_CRASHES - 1 and only_this_worker(runs) for runs in lone.values())
    is_fruitless = len(fruitless) >= MAX_FRUITLESS_CRASHES and own(fruitless) >= MAX_LONE_CRASHES
    last = sorted((segment for segment in lone if segment not in crashed), key=lambda segment: -len(lone[segment]))
    doubtful = {pending[segment] for segment in lone}
    turns: list[Turn] = []
    for later in (False, True):
        some = [segment for segment, speaker in pending.items() if (speaker in doubtful) is later]
        turns += [Turn([segment], alone=True) for segment in some if segment in suspects and not alone[segment]]
        if fresh := [segment for segment in some if segment not in suspects]:
            turns.append(Turn(fresh, alone=False))
    return CrashPlan(
        turns=[*turns, *(Turn([segment], alone=True) for segment in last)],
        crashed=crashed,
        is_hopeless=is_fruitless and not only_this_worker(fruitless),
        needs_second_opinion=needs_second_opinion or (is_fruitless and only_this_worker(fruitless)),
    )
