"""The batched engine on one GPU: how fast, and how near to what the card allows. One table, printed and written.

It needs no installation: from a bare checkout, with torch 2.11 to 2.13 and the wheels of ``ops/bench_gpu.txt``,

    python ops/bench_gpu.py --out bench_gpu.md

It makes a checkpoint of random weights of S1-mini's size (3.3 GB under the temporary directory, while it runs) and
takes some minutes. ``--device cpu --preset tiny`` runs the same on a small scale, to see that it works; its figures say
nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import os
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.engine_bench.children import checkpoints, in_child, set_environment
from ops.engine_bench.table import Report, machine


def stand_in_for_scipy() -> None:
    """audiotools imports it for functions that nothing here calls, and its wheel takes half of the room for wheels."""
    try:
        importlib.import_module("scipy")
    except ImportError:
        stand_in = types.ModuleType("scipy")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("scipy", loader=None)
        sys.modules["scipy"] = stand_in


stand_in_for_scipy()  # here, because every process that is started from here imports this file


def main() -> int:
    """Measure, print and write; 1 if something failed."""
    from ops.engine_bench.gpu import PLANS, card, has_gpu, measurements

    parser = argparse.ArgumentParser(description="Measure the batched engine on one GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=tuple(PLANS), default="s1-mini", help="size of the model")
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.md"), help="where the table is written")
    options = parser.parse_args()
    if options.device == "cuda" and not in_child(has_gpu):
        print("error: torch finds no GPU; to try the measurements, give --device cpu --preset tiny", file=sys.stderr)
        return 1
    plan = PLANS[options.preset].on(options.device)
    set_environment(threads=max(1, len(os.sched_getaffinity(0)) // max(plan.workers)))
    report = Report(f"`python ops/bench_gpu.py --preset {options.preset}`, {machine()}, {card(options.device)}")
    with checkpoints() as made:
        for measure in measurements(plan, made):
            report.add(measure)
            options.out.write_text(report.markdown(), encoding="utf-8")
    print(report.markdown())
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
