"""How much the parts of ``ops/bench_gpu.py`` measure, and on which card; part `workers`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ops.engine_bench import codec, workers
from ops.engine_bench.mps import cuda_mps
from ops.engine_bench.run_part import FleetBatch
from ops.engine_bench.table import Row
from ops.engine_bench.workers import Workload


@dataclass(frozen=True)
class Sizes:
    """How much the parts measure, for a size of the model."""

    check_rows: tuple[int, ...]
    slots: int
    decode_slots: tuple[int, ...]
    decode_segments: int
    wav_segments: int
    fleet_batch: FleetBatch
    checked_batch: FleetBatch
    upstream_frames: int
    codec: codec.Comparison
    workers: tuple[int, ...]
    workload: Workload


def sizes(preset: str, device: str) -> Sizes:
    """Those of a model of S1-mini's size, and for trying on a CPU those of a tiny one."""
    if preset == "s1-mini":
        return Sizes(
            check_rows=(1, 8, 16, 32, 64, 128),
            slots=128,
            decode_slots=(64, 128),
            decode_segments=256,
            wav_segments=512,
            fleet_batch=FleetBatch(segments=4000, frames=200, voices=16),
            checked_batch=FleetBatch(segments=800, frames=200, voices=16),
            upstream_frames=64,
            codec=codec.Comparison("full", device, ("float16", "bfloat16", "float32"), segments=8, frames=200, runs=2),
            workers=(1, 2),
            workload=Workload(device, "bfloat16", slots=128, segments=256, voices=8, shortest=100, longest=300, runs=2),
        )
    return Sizes(
        check_rows=(1, 4),
        slots=8,
        decode_slots=(2,),
        decode_segments=6,
        wav_segments=6,
        fleet_batch=FleetBatch(segments=5, frames=3, voices=2),
        checked_batch=FleetBatch(segments=5, frames=3, voices=2),
        upstream_frames=2,
        codec=codec.Comparison("small", device, ("bfloat16", "float32"), segments=2, frames=4, runs=2),
        workers=(2,),
        workload=Workload(
            device,
            "bfloat16" if device == "cuda" else "float32",
            slots=4,
            segments=6,
            voices=2,
            shortest=2,
            longest=6,
            runs=2,
        ),
    )


def measure_workers(directory: Path, counts: tuple[int, ...], workload: Workload) -> Iterator[Row]:
    """Part `workers`: text to WAV with several workers on one card, with and without CUDA's MPS."""
    for mps in (False, True) if workload.device == "cuda" else (False,):
        with cuda_mps() if mps else nullcontext():
            for count in counts:
                throughput = workers.work(directory, workload, count)
                what = f"text to WAV, {count} worker(s)" + (", CUDA MPS" if mps else "")
                remark = f"{throughput.slots} slots each, {workload.segments} segments each"
                yield Row(what, "audio-s/s", throughput.rates, remark=remark)
                remark = "from the start of Python, imports included; the last of them"
                yield Row(f"ready, {what}", "s", [throughput.ready_s], remark=remark)


def card(device: str) -> str:
    """The card and its driver."""
    if device == "cpu":
        return "no GPU"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().replace("\n", "; ")
    except (OSError, subprocess.CalledProcessError):
        return "a GPU that nvidia-smi does not report"


def has_gpu() -> bool:
    """Whether torch finds a GPU. Called in a child process, so that the parent takes none of its memory."""
    import torch

    return torch.cuda.is_available()
