"""Candidates for the attention of decode rows."""

from __future__ import annotations

from typing import Any

from cloner.engine.kernels.step.attend_decode import attend_decode
from cloner.engine.kernels.step.kernel_set import Kernel
from ops.engine_bench.candidates.attend_groups import attend_groups
from ops.engine_bench.candidates.attend_own_first import attend_own_first
from ops.engine_bench.candidates.attend_planned import attend_planned
from ops.engine_bench.candidates.candidate import Candidate, relaunched


def _shaped(parts: tuple[int, int], stages: int, warps: int) -> Kernel:
    """Today's kernel with other parts, stages and warps."""

    def attend(*arguments: Any) -> None:
        *others, _parts, _stages = arguments
        attend_decode(*others, parts, stages)

    return relaunched(attend, num_warps=warps)


def _candidate(name: str, kernel: Kernel) -> Candidate:
    return Candidate(f"attention, {name}", {"attend_decode": kernel})


ATTENTION = (
    _candidate(
        "groups planned once a step, 384 programs, 3 stages, 4 warps, 168 registers",
        relaunched(
            attend_planned(384, 3), maxnreg=168
        ),  # else 189, and two of them on a multiprocessor instead of three
    ),
    *(
        _candidate(
            f"groups planned once a step, {programs} programs, {stages} stages, {warps} warps",
            attend_planned(programs, stages, warps),
        )
        for programs, stages, warps in ((256, 3, 4), (256, 4, 4), (256, 4, 8), (128, 7, 8))
    ),
    *(
        _candidate(
            f"groups, {programs} programs, {stages} stages, {warps} warps", attend_groups(programs, stages, warps)
        )
        for programs, stages, warps in ((256, 5, 4), (256, 7, 4))
    ),
    *(
        _candidate(
            f"own pages first, {parts} parts, {stages} stages, {warps} warps", attend_own_first(parts, stages, warps)
        )
        for parts, stages, warps in (((2, 1), 5, 4), ((2, 1), 3, 4), ((1, 1), 3, 4), ((2, 2), 3, 4))
    ),
    *(
        _candidate(f"today's, {parts} parts, {stages} stages, {warps} warps", _shaped(parts, stages, warps))
        for parts, stages, warps in (((2, 1), 3, 4), ((1, 1), 5, 4), ((2, 2), 5, 4), ((2, 1), 5, 8))
    ),
)
