"""Candidates for the matrix products."""

from __future__ import annotations

from typing import Any

from cloner.engine.kernels.launch import early_launches
from cloner.engine.kernels.step.kernel_set import Kernel
from cloner.engine.token_rows import token_step
from cloner.engine.token_rows.token_step import TokenStep
from ops.engine_bench.candidates.candidate import Candidate, Change
from ops.engine_bench.candidates.linear_ahead import LinearAhead
from ops.engine_bench.candidates.linear_tiles import TileOf, long_steps, two_fit, wide_parts
from ops.engine_bench.candidates.linear_tma import LinearTma

_TMA, _TMA_AHEAD, _AHEAD = LinearTma(), LinearTma(), LinearAhead()


def _fetching(product: LinearAhead) -> Change:
    """Let it fetch the weights that follow."""

    def run(step: TokenStep, decode: int, prompts: int) -> None:
        product.run(step, decode, prompts)

    return (TokenStep, "run", run)


def _tiles(tile_of: TileOf) -> Change:
    return (token_step, "tile_of", tile_of)


def _early(product: Kernel) -> Kernel:
    """The slow transformer's products start early, too."""

    def started(*arguments: Any, **named: Any) -> None:
        with early_launches(enabled=True):
            product(*arguments, **named)

    return started


PRODUCTS = (
    Candidate(
        "linear by TMA, next weight fetched, two programs fit",
        {"linear": _TMA_AHEAD},
        (_fetching(_TMA_AHEAD), _tiles(two_fit)),
    ),
    Candidate(
        "linear by TMA, next weight fetched, two programs fit, all early",
        {"linear": _early(_TMA_AHEAD)},
        (_fetching(_TMA_AHEAD), _tiles(two_fit)),
    ),
    Candidate(
        "linear by TMA, next weight fetched, wide tiles in four parts",
        {"linear": _TMA_AHEAD},
        (_fetching(_TMA_AHEAD), _tiles(wide_parts)),
    ),
    Candidate("linear by TMA", {"linear": _TMA}),
    Candidate("linear by TMA, long steps", {"linear": _TMA}, (_tiles(long_steps),)),
    Candidate("linear by copies, next weight fetched", {"linear": _AHEAD}, (_fetching(_AHEAD),)),
    Candidate("linear as it is, two programs fit", changes=(_tiles(two_fit),)),
)
