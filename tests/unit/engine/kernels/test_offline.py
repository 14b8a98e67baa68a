"""Every kernel of the step compiles for every architecture that the tables name, and fits its shared memory.

Compiling takes seconds, so one launch of each kernel is compiled here, the one with the most shared memory;
``python -m cloner.engine.offline_kernels sm_89`` compiles all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_89", "sm_90"])
def test_the_largest_tile_of_each_kernel_compiles_and_fits(target: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "cloner.engine.offline_kernels", target, "--largest"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    names = {line.split()[0] for line in ran.stdout.splitlines() if line.endswith(" ok")}
    assert names == {
        "attend_decode_kernel",
        "attend_fast_kernel",
        "attend_prompt_kernel",
        "embed_kernel",
        "linear_kernel",
        "sample_first_kernel",
        "sample_next_kernel",
        "store_prompt_kernel",
    }
