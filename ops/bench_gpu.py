"""The batched engine on one GPU: is it right, how fast, and how near to what the card allows.

It needs no installation: from a bare checkout, with torch 2.11 to 2.13 and the wheels of ``ops/bench_gpu.txt``,

    python ops/bench_gpu.py [PART ...] [--limit SECONDS] --out bench_gpu.md

It makes a checkpoint of random weights of S1-mini's size (3.3 GB under the temporary directory, while it runs). Each
part runs in a process of its own with a time limit, and the table is written as its rows come. ``--device cpu --preset
tiny`` runs the same on a small scale, with plain torch functions instead of kernels, to see that it works; its figures
say nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import math
import os
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cloner.engine.kernel_trial.cache import KernelCache
from cloner.errors import LoadFailed
from cloner.settings import load_settings
from ops.engine_bench.children import checkpoints, in_child, set_environment
from ops.engine_bench.parts import Part, run_part
from ops.engine_bench.table import Report, machine

TOTAL_LIMIT_S = 240.0
"""Of all parts together on a GPU, if none is named: a part that has no time left is stopped, and can be named the next
time. Kernels that were compiled by then are in the folder that CLONER_KERNEL_CACHE names."""

CPU_LIMIT_S = 1800.0
"""Of a part on a CPU, where only its working matters."""

ONLY_IF_NAMED = ("cold", "checks", "tune", "upstream", "workers")


def stand_in_for_scipy() -> None:
    """audiotools imports it for functions that nothing here calls, and its wheel takes half of the room for wheels."""
    try:
        importlib.import_module("scipy")
    except ImportError:
        stand_in = types.ModuleType("scipy")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("scipy", loader=None)
        sys.modules["scipy"] = stand_in


stand_in_for_scipy()  # here, because every process that is started from here imports this file


def make_parts(
    preset: str, device: str, slots: int | None = None, candidate: str = ""
) -> dict[str, tuple[Part, tuple[Any, ...]]]:
    """Each part with the arguments that its function gets behind the checkpoint's folder. `slots` replaces the numbers
    of slots that `gpu.sizes` has; `candidate` is what the names of the candidates of `tune` contain."""
    from ops.engine_bench import (
        check_part,
        checks_part,
        codec_part,
        cold_part,
        decode_part,
        gpu,
        run_part,
        steps_part,
        tune_part,
        upstream_part,
        wav_part,
    )

    sizes = gpu.sizes(preset, device)
    if slots is not None:
        segments = max(sizes.decode_segments, 2 * slots)  # else no slot is filled again
        sizes = replace(sizes, slots=slots, decode_slots=(slots,), decode_segments=segments)
    parts: list[tuple[Part, tuple[Any, ...]]] = [
        (
            Part("check", "the step's logits, sampler, determinism, memory", check_part.measure, 110),
            (preset, device, sizes.check_rows),
        ),
        (Part("steps", "milliseconds a step by rows", steps_part.measure, 60), (preset, device, sizes.slots)),
        (
            Part("decode", "texts to codes through the scheduler", decode_part.measure, 60),
            (preset, device, sizes.decode_slots, sizes.decode_segments),
        ),
        (Part("wav", "texts to WAV files", wav_part.measure, 120), (device, sizes.slots, sizes.wav_segments)),
        (Part("run", "a batch through a fleet", run_part.measure, 120), (sizes.fleet_batch, sizes.slots)),
        (
            Part("checks", "what the checks of attempts cost", checks_part.measure_both, 200),
            (sizes.checked_batch, sizes.slots, device),
        ),
        (Part("codec", "the codec, right and fast", codec_part.measure, 200), (device,)),
        (Part("cold", "a first start, and a second one", cold_part.measure, 120), (device, sizes.slots)),
        (
            Part("tune", "candidates for faster kernels, compared and timed", tune_part.measure, 150),
            (preset, device, sizes.slots, candidate),
        ),
        (
            Part("upstream", "upstream's code, one text at a time", upstream_part.measure, 120),
            (device, sizes.upstream_frames, sizes.codec),
        ),
        (
            Part("workers", "several workers on one card", gpu.measure_workers, 240),
            (sizes.workers, sizes.workload),
        ),
    ]
    return {part.name: (part, arguments) for part, arguments in parts}


def total_limit_s(limit_s: float | None, parts: Sequence[str], device: str) -> float:
    """Seconds that all parts may take together: what the user says, else no limit on a CPU or if parts are named."""
    if limit_s is not None:
        return limit_s
    return math.inf if parts or device == "cpu" else TOTAL_LIMIT_S


def _positive(text: str) -> int:
    """An option's value. Raises `ArgumentTypeError` for what is no number above 0."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")


def main() -> int:
    """Run the parts, write their rows as they come, and print them; 1 if one failed."""
    from ops.engine_bench.gpu import card, has_gpu

    parser = argparse.ArgumentParser(
        description="Measure the batched engine on one GPU.", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = [
        f"  {part.name:10}{part.what}, at most {part.limit_s:.0f} s" for part, _ in make_parts("tiny", "cpu").values()
    ]
    parser.epilog = "\n".join(
        [
            "parts:",
            *listed,
            f"\nNone named means all but {', '.join(ONLY_IF_NAMED)}, together at most {TOTAL_LIMIT_S:.0f} s on a GPU"
            " unless --limit says otherwise.",
        ]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure, see below")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=("s1-mini", "tiny"), default="s1-mini", help="size of the model")
    parser.add_argument(
        "--limit", type=float, metavar="SECONDS", help="stop after so many, whatever is still to measure"
    )
    parser.add_argument(
        "--slots", type=_positive, metavar="N", help="slots of a worker, where a part has one: 256, for instance"
    )
    parser.add_argument(
        "--candidate", default="", metavar="TEXT", help="part tune: only candidates with this in their name"
    )
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.md"), help="where the table is written")
    options = parser.parse_args()
    parts = make_parts(options.preset, options.device, options.slots, options.candidate)
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(parts)}")
    if options.device == "cuda" and not in_child(has_gpu):
        print("error: torch finds no GPU; to try the measurements, give --device cpu --preset tiny", file=sys.stderr)
        return 1
    if options.device == "cuda":
        settings = load_settings()
        try:
            KernelCache(settings.kernel_cache, settings.out_dir).open()  # for all parts, and the workers of `run`
        except LoadFailed as error:
            print(f"error: {error.message}", file=sys.stderr)
            return 1
    set_environment(threads=1 if options.device == "cpu" else min(8, len(os.sched_getaffinity(0))))
    began = time.monotonic()

    limit_s = total_limit_s(options.limit, options.parts, options.device)

    def left_s() -> float:
        return max(0.0, limit_s - (time.monotonic() - began))

    report = Report(f"`python ops/bench_gpu.py`, {options.preset}, {machine()}, {card(options.device)}")
    with checkpoints() as made:
        directory = made.get(options.preset)
        for name in options.parts or [name for name in parts if name not in ONLY_IF_NAMED]:
            part, arguments = parts[name]
            part = replace(part, limit_s=min(CPU_LIMIT_S if options.device == "cpu" else part.limit_s, left_s()))
            rows = run_part(part, directory, *arguments)
            while report.add_next(rows):
                options.out.write_text(report.markdown(), encoding="utf-8")
    options.out.write_text(report.markdown(), encoding="utf-8")
    print(report.markdown())
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
