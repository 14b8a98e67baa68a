"""Measurements on a GPU: decoding by slots, the codec, and concurrent workers from text to WAV files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ops.engine_bench import codec, decoding, workers
from ops.engine_bench.children import Checkpoints, in_child
from ops.engine_bench.mps import cuda_mps
from ops.engine_bench.table import Row


@dataclass(frozen=True)
class Plan:
    """The measurements, and their sizes."""

    size: str
    decoding: decoding.Comparison
    codec: codec.Comparison
    workload: workers.Workload
    workers: tuple[int, ...]
    wav_goal: str = ""
    ready_goal: str = ""
    """Both for one worker alone."""

    def on(self, device: str) -> Self:
        """The same plan on another device."""
        return replace(
            self,
            decoding=replace(self.decoding, device=device),
            codec=replace(self.codec, device=device),
            workload=replace(self.workload, device=device),
        )


PLANS = {
    "s1-mini": Plan(
        size="s1-mini",
        decoding=decoding.Comparison(
            size="s1-mini",
            device="cuda",
            precision="bfloat16",
            slots=(1, 8, 16, 32, 64, 128),
            frames=256,
            upstream_frames=64,
            runs=3,
            goals={64: ">= 600 x real time (12,920 frames/s)"},
        ),
        codec=codec.Comparison(
            name="full", device="cuda", precisions=("float16", "bfloat16", "float32"), segments=32, frames=200, runs=3
        ),
        workload=workers.Workload(
            device="cuda", precision="bfloat16", slots=64, segments=256, voices=8, shortest=100, longest=300, runs=3
        ),
        workers=(1, 2, 4),
        wav_goal=">= 300 audio-s/s",
        ready_goal="< 30 s",
    ),
    "tiny": Plan(
        size="tiny",
        decoding=decoding.Comparison(
            size="tiny", device="cuda", precision="bfloat16", slots=(1, 4), frames=4, upstream_frames=2, runs=2
        ),
        codec=codec.Comparison(
            name="small", device="cuda", precisions=("bfloat16", "float32"), segments=2, frames=4, runs=2
        ),
        workload=workers.Workload(
            device="cuda", precision="bfloat16", slots=4, segments=6, voices=2, shortest=2, longest=6, runs=2
        ),
        workers=(2,),
    ),
}


def measurements(plan: Plan, made: Checkpoints) -> Iterator[Callable[[], list[Row]]]:
    """The measurements in order, each in processes of its own."""
    yield lambda: in_child(decoding.rows, made.get(plan.size), plan.decoding)
    yield lambda: in_child(codec.rows, made.get(plan.size), plan.codec)
    yield lambda: worker_rows(made.get(plan.size), plan, mps=False)
    if plan.workload.device == "cuda":
        yield lambda: worker_rows(made.get(plan.size), plan, mps=True)


def worker_rows(directory: Path, plan: Plan, *, mps: bool) -> list[Row]:
    """Text to WAV with each number of workers. Raises `NotHereError` if there is no MPS."""
    rows = []
    with cuda_mps() if mps else nullcontext():
        for count in plan.workers:
            throughput = workers.work(directory, plan.workload, count)
            what = f"text to WAV, {count} worker(s)" + (", CUDA MPS" if mps else "")
            alone = count == 1 and not mps
            remark = f"{throughput.slots} slots each, {plan.workload.segments} segments each"
            rows.append(Row(what, "audio-s/s", throughput.rates, goal=plan.wav_goal if alone else "", remark=remark))
            remark = "from the start of Python, imports included; the last of them"
            rows.append(
                Row(f"ready, {what}", "s", [throughput.ready_s], goal=plan.ready_goal if alone else "", remark=remark)
            )
    return rows


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
