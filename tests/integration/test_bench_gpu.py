"""``ops/bench_gpu.py`` on its small scale, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]


def bench(*options: str, out: Path) -> subprocess.CompletedProcess[str]:
    # It runs from a checkout, without an installed project.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(CHECKOUT / "ops" / "bench_gpu.py"), *options, "--out", str(out)]
    return subprocess.run(command, cwd=out.parent, env=env, capture_output=True, text=True)


def test_every_measurement_runs_without_a_gpu_on_a_tiny_model(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    ran = bench("--device", "cpu", "--preset", "tiny", out=out)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert ran.stdout.strip() == out.read_text(encoding="utf-8").strip()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines() if "|" in line][2:]
    measured = {what: float(ours.split()[0]) for what, ours, *_ in rows}
    assert all(value > 0 for value in measured.values()), measured
    for part in (
        "decoding, tiny, bfloat16, 1 slot(s), against generate_long",
        "decoding, tiny, bfloat16, 4 slot(s), against generate_long",
        "decoding, tiny, bfloat16, 4 slot(s): part of what memory allows",
        "codec, small, bfloat16, batched, against codec.decode in float32",
        "text to WAV, 2 worker(s)",
        "ready, text to WAV, 2 worker(s)",
    ):
        assert part in measured


def test_without_a_gpu_it_says_so_and_how_to_try_it(tmp_path: Path) -> None:
    ran = bench(out=tmp_path / "table.md")
    assert ran.returncode == 1
    assert ran.stderr == "error: torch finds no GPU; to try the measurements, give --device cpu --preset tiny\n"
    assert not (tmp_path / "table.md").exists()
