"""Compile the candidates' kernels for a GPU that is not there.

    python -m tests.unit.engine_bench.offline_candidates [TEXT] [--all]

A line of JSON for each form of a kernel that today's step has not, of the candidates whose name contains TEXT, at
S1-mini's size, for the steps that `tune` measures, sm_90. Products have some twenty forms each: without ``--all`` only
the one with the largest tile is compiled, and another that starts early.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from triton.runtime.jit import MockTensor

from cloner.engine.kernel_trial.offline import largest, use_target, waits_first
from cloner.engine.kernels.launch import Launch, distinct
from cloner.engine.kernels.step.tiles import Architecture
from ops.engine_bench.candidates import CANDIDATES
from ops.engine_bench.step_model import step_options
from ops.engine_bench.tune_part import SHAPES, Work
from tests.unit.engine.kernel_trial.offline import Compiled, described

TARGET = 90


def compiled(text: str, *, all_of_them: bool) -> Iterator[tuple[str, Compiled]]:
    """Each candidate's name, with what its kernels need."""
    use_target(TARGET)
    slots = max(decode for decode, _ in SHAPES)
    work = Work("s1-mini", step_options(slots), Architecture.named(TARGET), SHAPES)
    done = {launch.variant() for launch in work.launches()}
    for place, candidate in enumerate(CANDIDATES):
        if text in candidate.name:
            found = distinct(replace(work, places=(place,)).launches())
            new = [launch for launch in found if launch.variant() not in done]
            done |= {launch.variant() for launch in new}
            for launch in new if all_of_them else _largest_products(new):
                yield candidate.name, _compiled(launch)


def _largest_products(launches: list[Launch]) -> list[Launch]:
    """Of products the largest, of other kernels all."""
    products = [launch for launch in launches if "BM" in launch.options]
    return [*(launch for launch in launches if "BM" not in launch.options), *largest(products)]


def _compiled(launch: Launch) -> Compiled:
    arguments = tuple(MockTensor.wrap_dtype(argument) for argument in launch.arguments)
    kernel = Launch(launch.kernel, launch.grid, arguments, launch.options).compile()
    if launch.starts_early and not waits_first(kernel.asm["sass"]):
        sys.exit(f"{launch.name} starts early, and does not wait for the kernel before it")
    constants: dict[str, Any] = {name: value for name, value in launch.options.items() if isinstance(value, int)}
    return described(launch.name, constants, kernel, TARGET)


def main() -> None:
    """Print the lines."""
    texts = [argument for argument in sys.argv[1:] if argument != "--all"]
    for name, kernel in compiled(texts[0] if texts else "", all_of_them="--all" in sys.argv):
        print(json.dumps({"candidate": name, **asdict(kernel)}), flush=True)


if __name__ == "__main__":
    main()
