"""Candidates for the attention of decode rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloner.engine.kernels.step.attend_decode import attend_decode
from cloner.engine.kernels.step.kernel_set import Kernel
from ops.engine_bench.candidates.attend_groups import attend_groups
from ops.engine_bench.candidates.attend_own_first import attend_own_first
from ops.engine_bench.candidates.attend_planned import attend_planned
from ops.engine_bench.candidates.candidate import Candidate, relaunched


def _today(parts: tuple[int, int], stages: int) -> Kernel:
    """Today's kernel with other parts and stages."""

    kernel: Kernel = attend_decode

    def attend(*arguments: Any) -> None:
        kernel(*arguments[:-2], parts, stages)

    return attend


def _candidates(name: str, kernel: Kernel, *options: dict[str, int]) -> Iterator[Candidate]:
    """The kernel as it is, or with each of these launch options."""
    for each in options or ({},):
        limits = "".join(f", {option} {value}" for option, value in each.items())
        yield Candidate(f"attention, {name}{limits}", {"attend_decode": relaunched(kernel, **each)})


_FOUR_FIT = {"maxnreg": 128}
"""Registers of a thread, so that four programs of four warps fit on a multiprocessor; three do with up to 168."""

ATTENTION = (
    *_candidates("groups planned once a step, 256 programs, 3 stages", attend_planned(256, 3)),
    *_candidates("groups planned once a step, 384 programs, 3 stages", attend_planned(384, 3), {"maxnreg": 168}),
    *_candidates("groups planned once a step, 256 programs, 4 stages", attend_planned(256, 4), {}, {"num_warps": 8}),
    *_candidates("groups planned once a step, 128 programs, 7 stages", attend_planned(128, 7), {"num_warps": 8}),
    *_candidates("groups, 256 programs, 5 stages", attend_groups(256, 5)),
    *_candidates("own pages first, (2, 1) parts, 5 stages", attend_own_first((2, 1), 5)),
    *_candidates("own pages first, (2, 1) parts, 3 stages", attend_own_first((2, 1), 3), _FOUR_FIT),
    *_candidates("own pages first, (1, 1) parts, 3 stages", attend_own_first((1, 1), 3), _FOUR_FIT),
    *_candidates("own pages first, (2, 2) parts, 3 stages", attend_own_first((2, 2), 3), _FOUR_FIT),
    *_candidates("today's, (2, 1) parts, 3 stages", _today((2, 1), 3)),
    *_candidates("today's, (1, 1) parts, 5 stages", _today((1, 1), 5)),
    *_candidates("today's, (2, 2) parts, 5 stages", _today((2, 2), 5)),
)
