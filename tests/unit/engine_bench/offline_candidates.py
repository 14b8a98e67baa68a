"""Compile the candidates' kernels for a GPU that is not there.

    python -m tests.unit.engine_bench.offline_candidates [TEXT]

A line of JSON for each form of a kernel that today's step has not, of the candidates whose name contains TEXT, at
S1-mini's size, 64 and 128 rows, sm_90.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from triton.runtime.jit import MockTensor

from cloner.engine.kernels.launch import Launch, distinct
from cloner.engine.kernels.tiles import Architecture
from cloner.engine.offline_kernels import use_target
from ops.engine_bench.candidates import CANDIDATES
from ops.engine_bench.step_model import step_options
from ops.engine_bench.tune_part import ROWS, Work
from tests.unit.engine.kernels.offline import Compiled, described

TARGET = 90


def compiled(text: str) -> Iterator[tuple[str, Compiled]]:
    """Each candidate's name, with what its kernels need."""
    use_target(TARGET)
    work = Work("s1-mini", step_options(max(ROWS)), Architecture.named(TARGET), ROWS)
    done = {launch.variant() for launch in work.launches()}
    for place, candidate in enumerate(CANDIDATES):
        if text in candidate.name:
            for launch in distinct(replace(work, places=(place,)).launches()):
                if launch.variant() not in done:
                    done.add(launch.variant())
                    yield candidate.name, _compiled(launch)


def _compiled(launch: Launch) -> Compiled:
    arguments = tuple(MockTensor.wrap_dtype(argument) for argument in launch.arguments)
    kernel = Launch(launch.kernel, launch.grid, arguments, launch.options).compile()
    constants: dict[str, Any] = {name: value for name, value in launch.options.items() if isinstance(value, int)}
    return described(launch.name, constants, kernel, TARGET)


def main() -> None:
    """Print the lines."""
    for name, kernel in compiled(sys.argv[1] if len(sys.argv) > 1 else ""):
        print(json.dumps({"candidate": name, **asdict(kernel)}), flush=True)


if __name__ == "__main__":
    main()
