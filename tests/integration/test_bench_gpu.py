"""``ops/bench_gpu.py`` on its small scale, on the CPU."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench_gpu import TOTAL_LIMIT_S, total_limit_s

pytestmark = pytest.mark.slow

ONLY_LISTED = """
import re, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def name(text):
    return re.match(r"[\\w.-]+", text)[0].lower().replace("_", "-")

def with_requirements(package, found):
    found.add(package)
    try:
        for line in requires(package) or ():
            if "extra ==" not in line and name(line) not in found:
                with_requirements(name(line), found)
    except PackageNotFoundError:
        pass
    return found

listed = {name(line) for line in open("ops/bench_gpu.txt") if line.strip() and not line.startswith("#")}
there = listed | with_requirements("torch", set()) | {"cloner", "triton"}
packages = packages_distributions()

class OnlyListed(PathFinder):
    @classmethod
    def find_spec(cls, module, path=None, target=None):
        owners = {name(owner) for owner in packages.get(module.partition(".")[0], ())}
        return super().find_spec(module, path, target) if not owners or owners & there else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyListed]
sys.path.insert(0, ".")
import ops.bench_gpu
from ops.engine_bench import check_part, checks_part, codec_part, cold_part, decode_part, gpu, run_part, steps_part
from ops.engine_bench import upstream_part, wav_part
import cloner.cli.fleet, cloner.cli.main, cloner.collector.tasks, cloner.input.batch_file, cloner.worker.tasks
import cloner.worker.chunk_run, cloner.worker.worker_process
import cloner.collector.__main__, cloner.worker.__main__, cloner.input.forms.tables, launcher.__main__
"""
"""A machine without a network has torch and these wheels, and no other package."""

CHECKOUT = Path(__file__).parents[2]


def bench(*options: str, out: Path) -> subprocess.CompletedProcess[str]:
    # It runs from a checkout, without an installed project.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(CHECKOUT / "ops" / "bench_gpu.py"), *options, "--out", str(out)]
    return subprocess.run(command, cwd=out.parent, env=env, capture_output=True, text=True)


@pytest.mark.timeout(900)
def test_every_part_runs_without_a_gpu_on_a_tiny_model(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    ran = bench(
        "--device", "cpu", "--preset", "tiny", "check", "steps", "decode", "wav", "run", "cold", "upstream", out=out
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert ran.stdout.strip() == out.read_text(encoding="utf-8").strip()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines() if "|" in line][2:]
    measured = [what for what, *_ in rows]
    for part in (
        "check: logits, 4 rows",
        "check: deterministic, segments alone and among others",
        "step, 8 + 0 rows, 400 positions, shared",
        "decoding, 2 slots, 6 segments, texts of",
        "wav: engine loaded",
        "wav: text to WAV files, 6 segments, 16 voices, 8 slots, 4 thread(s) that write",
        "run: `launcher up` until its worker is ready",
        "run: `cloner submit --wait`, 5 segments of 3 frames, 2 voices",
        "run: `cloner submit --wait`, 5 segments of 3 frames, 2 voices, load included",
        "cold: from the start of Python until the engine is ready, first on a machine, no kernel compiled",
        "cold: from the start of Python until the engine is ready, again, kernels compiled and tried before",
        "upstream: decoding, generate_long",
        "codec, small, bfloat16, batched, against codec.decode in float32",
    ):
        assert any(what.startswith(part) for what in measured), part


def test_what_it_imports_is_listed() -> None:
    ran = subprocess.run([sys.executable, "-c", ONLY_LISTED], cwd=CHECKOUT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_parts_are_listed_and_others_refused(tmp_path: Path) -> None:
    shown = bench("--help", out=tmp_path / "table.md").stdout
    for part in ("check", "steps", "decode", "wav", "run", "codec", "cold", "tune", "upstream", "workers"):
        assert f"\n  {part:10}" in shown
    assert "None named means all but cold, checks, tune, upstream, workers, together at most 240 s on a GPU" in shown
    refused = bench("wave", out=tmp_path / "table.md")
    assert refused.returncode == 2
    assert "no part is called wave: there are check, steps," in refused.stderr


def test_only_all_parts_on_a_gpu_have_a_limit_together_that_nobody_gave() -> None:
    assert total_limit_s(None, [], "cuda") == TOTAL_LIMIT_S
    assert total_limit_s(None, ["wav"], "cuda") == math.inf
    assert total_limit_s(None, [], "cpu") == math.inf
    assert total_limit_s(0.0, [], "cpu") == 0.0


@pytest.mark.parametrize("limit", ["0.01", "0"])
def test_a_limit_stops_what_is_left_and_the_table_says_so(limit: str, tmp_path: Path) -> None:
    ran = bench("--device", "cpu", "--preset", "tiny", "steps", "--limit", limit, out=tmp_path / "table.md")
    assert ran.returncode == 1
    assert "Failed: RuntimeError: part steps was stopped after 0 s" in ran.stdout


def test_without_a_gpu_it_says_so_and_how_to_try_it(tmp_path: Path) -> None:
    ran = bench(out=tmp_path / "table.md")
    assert ran.returncode == 1
    assert ran.stderr == "error: torch finds no GPU; to try the measurements, give --device cpu --preset tiny\n"
    assert not (tmp_path / "table.md").exists()
