"""Every kernel of the step compiles for every architecture that the tables name, and fits its shared memory.

Compiling takes seconds, so one launch of each kernel is compiled here, the one with the most shared memory (and one
that starts early, in whose machine code the wait is looked for);
``python -m cloner.engine.kernel_trial.offline sm_89`` compiles all.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloner.engine.kernel_trial.offline import waits_first
from cloner.engine.kernels import step

STEP_KERNELS = {
    "attend_decode_kernel",
    "attend_fast_kernel",
    "attend_prompt_kernel",
    "embed_kernel",
    "linear_kernel",
    "sample_first_kernel",
    "sample_next_kernel",
    "store_prompt_kernel",
}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_89", "sm_90"])
def test_the_largest_tile_of_each_kernel_compiles_and_fits(target: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "cloner.engine.kernel_trial.offline", target, "--largest"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    names = [line.split()[0] for line in ran.stdout.splitlines() if line.endswith(" ok")]
    assert set(names) == STEP_KERNELS
    # On sm_90 the fast transformer's products start early, those of the slow one do not.
    assert names.count("linear_kernel") == (2 if target == "sm_90" else 1)


def test_a_kernel_that_reads_or_branches_before_it_waits_is_found() -> None:
    """A kernel that starts early, as the machine code of sm_90 shows it."""
    start, read, wait = "S2R R0, SR_TID.X;\nPREEXIT;\n", "LDG.E R2, desc[UR4][R2.64];\n", "ACQBULK;\n"
    assert waits_first(start + wait + read)
    assert waits_first(start + "LDC.64 R12, c[0x0][0x210];\nLDS R1, [R2];\n" + wait + read)
    assert not waits_first(start + read), "it does not wait"
    assert not waits_first(start + read + wait)
    assert not waits_first(start + "@P0 BRA `(.L_1);\n" + wait + read), "one path may go round it"
    assert not waits_first(start + "STG.E desc[UR4][R2.64], R1;\n" + wait), "the kernel before may still read there"


@pytest.mark.parametrize(
    "instruction",
    [
        "REDG.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R1",
        "UTMASTG.2D [UR8], [UR4]",
        "UTMAREDG.2D.ADD [UR8], [UR4]",
        "UBLKRED.S.ADD [UR8], [UR4], UR6",
        "UTMAPF.L2.2D [UR8], [UR4]",
        "@P0 LDGMC.E.ADD.F16x8.RN R4, desc[UR4][R2.64]",
        "BRX R2 -0x120",
        "JMX R2 -0x120",
    ],
)
def test_rarer_instructions_before_the_wait_are_found_as_well(instruction: str) -> None:
    wait = "ACQBULK;\n"
    assert waits_first(f"{wait}{instruction};\n")
    assert not waits_first(f"{instruction};\n{wait}")


@pytest.mark.parametrize("instruction", ["REDUX.SUM UR4, R2", "LDSM.16.M88.4 R4, [R2]", "STS [R2], R4", "STL [R1], R4"])
def test_what_stays_in_the_block_may_come_before_the_wait(instruction: str) -> None:
    assert waits_first(f"{instruction};\nACQBULK;\n")


def kernels_that_may_start_early() -> list[tuple[str, ast.FunctionDef]]:
    """All of the step's, in their sources."""
    found = []
    for path in sorted(Path(step.__path__[0]).glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name.endswith("_kernel"):
                found += [(path.name, function)] if "EARLY" in [each.arg for each in function.args.args] else []
    return found


def test_each_kernel_that_may_start_early_waits_in_its_first_statement() -> None:
    kernels = kernels_that_may_start_early()
    assert {function.name for _, function in kernels} == STEP_KERNELS
    for file, function in kernels:
        first = ast.unparse(function.body[1])  # behind the docstring
        assert first == "after_previous(EARLY)", f"{file}: {function.name}"
