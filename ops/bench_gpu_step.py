"""The decoding step over token rows on one GPU: checked, timed, and through the scheduler.

    python ops/bench_gpu_step.py [check] [steps] [decode] [tune] --out bench_step.md

Parts that are not named are left out; none named means all but `tune`. Needs what ``ops/bench_gpu.py`` needs.
``--device cpu --preset tiny`` runs the same on a small scale, with the kernels' twins.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.bench_gpu import stand_in_for_scipy
from ops.engine_bench.children import checkpoints, settle
from ops.engine_bench.parts import Part, run_part
from ops.engine_bench.table import Report, machine

stand_in_for_scipy()  # here, because every process that is started from here imports this file


CPU_LIMIT_S = 1800.0
"""Of a part on a CPU, where only its working matters."""


def main() -> int:
    """Run the parts, print their rows and write them as they come; 1 if one failed."""
    from ops.engine_bench import check_part, decode_part, steps_part, tune_part
    from ops.engine_bench.gpu import card

    parts = {
        part.name: part
        for part in (
            Part("check", "logits, sampler, determinism, memory", check_part.measure, 110),
            Part("steps", "milliseconds by rows", steps_part.measure, 60),
            Part("decode", "through the scheduler", decode_part.measure, 60),
            Part("tune", "other choices than the tables', only if it is named", tune_part.measure, 60),
        )
    }
    parser = argparse.ArgumentParser(description="Check and measure the decoding step on one GPU.")
    listed = ", ".join(f"{part.name} ({part.what}, at most {part.limit_s} s)" for part in parts.values())
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {listed}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=("s1-mini", "tiny"), default="s1-mini", help="size of the model")
    parser.add_argument("--out", type=Path, default=Path("bench_step.md"), help="where the table is written")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(parts)}")
    settle(threads=1 if options.device == "cpu" else 8)
    large = options.preset == "s1-mini"
    arguments = {
        "check": ((1, 8, 16, 32, 64, 128) if large else (1, 4),),
        "steps": (128 if large else 8,),
        "tune": (128 if large else 8,),
        "decode": ((64, 128) if large else (2,), 256 if large else 6),
    }
    report = Report(f"`python ops/bench_gpu_step.py`, {options.preset}, {machine()}, {card(options.device)}")
    with checkpoints() as made:
        directory = made.get(options.preset)
        for name in options.parts or [name for name in parts if name != "tune"]:
            part = parts[name] if options.device == "cuda" else replace(parts[name], limit_s=CPU_LIMIT_S)
            rows = run_part(part, directory, options.preset, options.device, *arguments[name])
            while report.add_next(rows):
                options.out.write_text(report.markdown(), encoding="utf-8")
    options.out.write_text(report.markdown(), encoding="utf-8")
    print(report.markdown())
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
