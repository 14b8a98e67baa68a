"""Part `tune` and its candidates: compiled for sm_90 here, compared and refused on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloner.engine.kernels.step.attend_decode import attend_decode_twin
from cloner.engine.kernels.step.tiles import KIB, SHARED_KIB
from ops.engine_bench import tune_part
from ops.engine_bench.candidates import CANDIDATES
from ops.engine_bench.candidates.candidate import Candidate
from ops.engine_bench.children import checkpoints

CHECKOUT = Path(__file__).parents[3]
FAMILIES = ("attention, groups", "attention, own", "attention, today's", "linear", "sample")


def test_candidates_have_names_of_their_own() -> None:
    names = [candidate.name for candidate in CANDIDATES]
    assert len(names) == len(set(names))
    assert all(any(family in name for family in FAMILIES) for name in names), "each is compiled below"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", FAMILIES)
def test_their_kernels_compile_for_sm_90_without_spills(family: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.unit.engine_bench.offline_candidates", family],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    kernels = [json.loads(line) for line in ran.stdout.splitlines()]
    with_kernels = {candidate.name for candidate in CANDIDATES if candidate.kernels and family in candidate.name}
    assert {kernel["candidate"] for kernel in kernels} >= with_kernels
    for kernel in kernels:
        assert kernel["spilled_bytes"] == 0, kernel
        assert kernel["shared_bytes"] <= SHARED_KIB[90] * KIB, kernel
        if kernel["products"]:
            assert kernel["wide_copies"] or kernel["tma_loads"], kernel


def slightly_wrong(*arguments: Any) -> None:
    attend_decode_twin(*arguments)
    arguments[1].mul_(1.03)


def raising(*_arguments: Any) -> None:
    raise RuntimeError("no such card")


@pytest.fixture(scope="module")
def tiny() -> Iterator[Path]:
    with checkpoints() as made:
        yield made.get("tiny")


@pytest.mark.slow
def test_what_differs_or_fails_is_not_timed_and_the_others_are(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = (
        Candidate("wrong", {"attend_decode": slightly_wrong}),
        Candidate("raises", {"attend_decode": raising}),
        Candidate("right", {"attend_decode": attend_decode_twin}),
        Candidate("unasked"),
    )
    monkeypatch.setattr(tune_part, "CANDIDATES", candidates)
    rows = list(tune_part.measure(tiny, "tiny", "cpu", 4, "r"))
    timed = [row for row in rows if row.unit == "ms"]
    assert [row.what.split(",")[0] for row in timed] == [
        f"tune: {name}" for name in ("as it is", "right", "as it is") for _place in range(3)
    ]
    assert all(len(row.ours) == 3 for row in timed)
    assert timed[3].remark == "output as today's, off by 0.0e+00 at most"
    wrong, raised = (row for row in rows if row.unit != "ms")
    assert wrong.what == "tune: wrong"
    assert "it is off today's output by 3.0e-02 (at most 0.01)" in wrong.remark
    assert raised.remark == "not timed: RuntimeError: no such card"
