"""Part `decode`: codes of many segments through the scheduler, prompts read within the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.engine.gpu_step import Statuses, StepRows
from cloner.engine.row_scheduler import Scheduler
from ops.engine_bench.step_model import compile_all, load_weights, make_device, make_scheduler, step_options
from ops.engine_bench.table import Row
from ops.engine_bench.upstream import wait_for
from ops.engine_bench.workload import FRAMES_PER_SECOND, TEXT, codes_of, make_requests, make_voice

VOICES, SHORTEST, LONGEST = 8, 100, 300
GOALS = {64: ">= 1,050 x real time on an H200", 128: ">= 1,500 x real time on an H200"}
RUNS = 2


@torch.inference_mode()
def measure(directory: Path, size: str, name: str, slots: tuple[int, ...], segments: int) -> Iterator[Row]:
    """Frames a second, for each number of slots."""
    device = torch.device(name)
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    compile_all(size, [step_options(count) for count in slots], device)
    weights, prompts = load_weights(directory, device, precision)
    lengths = np.linspace(SHORTEST, LONGEST, segments).round().astype(int).tolist()
    if device.type == "cpu":
        lengths = [max(1, length // 50) for length in lengths]
    for count in slots:
        step = make_device(weights, step_options(count))
        began = time.perf_counter()
        if device.type == "cuda":
            step.warm_up()
        yield Row(f"decoding, {count} slots: graphs captured", "s", [time.perf_counter() - began])
        scheduler = make_scheduler(step, prompts)
        runs = [_run(scheduler, lengths, device) for _ in range(RUNS + 1)][1:]
        use, (rate, _, _) = scheduler.usage, max(runs)
        yield Row(
            f"decoding, {count} slots, {segments} segments, prompts included",
            "frames/s",
            [run[0] for run in runs],
            goal=GOALS.get(count, ""),
            remark=(
                f"{rate / FRAMES_PER_SECOND:.0f} x real time at best; occupancy {use.occupancy:.3f},"
                f" {runs[-1][1]} steps, host waited {runs[-1][2]:.0%} of the time"
            ),
        )
        del scheduler, step
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _run(scheduler: Scheduler, lengths: list[int], device: torch.device) -> tuple[float, int, float]:
    """Frames a second, steps, and the part of the time that the host waited for the device."""
    voices = [make_voice(voice) for voice in range(VOICES)]
    sentence = TEXT + " "
    texts = [(sentence * 8)[: max(1, round(length / FRAMES_PER_CHARACTER))] for length in lengths]
    requests = make_requests(lengths, voices, texts)
    scheduler.pool.reset()  # references are read within the time
    steps, waited = scheduler.usage.steps, 0.0
    launch = scheduler.device.launch

    def timed(rows: StepRows) -> Statuses:
        statuses = launch(rows)

        def wait() -> list[int]:
            nonlocal waited
            began = time.perf_counter()
            values = statuses()
            waited += time.perf_counter() - began
            return values

        return wait

    wait_for(device)
    began = time.perf_counter()
    with patch.object(scheduler.device, "launch", timed):
        frames = [codes_of(answer).shape[1] for answer in scheduler.run(requests)]
    wait_for(device)
    seconds = time.perf_counter() - began
    if sorted(frames) != sorted(lengths):
        raise RuntimeError("segments have not as many frames as were asked for")
    return sum(frames) / seconds, scheduler.usage.steps - steps, waited / seconds
