"""Frames a second: the batched decoder against `generate_long`, prompts left out on both sides."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ops.engine_bench import ours, roofline, upstream
from ops.engine_bench.children import multiplies
from ops.engine_bench.table import Row
from ops.engine_bench.workload import FRAMES_PER_SECOND, make_requests, make_voice

SPEAKERS = 4


@dataclass(frozen=True)
class Comparison:
    """`frames` of each of our slots, for each number of slots, against `upstream_frames`."""

    size: str
    device: str
    precision: str
    slots: Sequence[int]
    frames: int
    upstream_frames: int
    runs: int
    goals: dict[int, str] = field(default_factory=dict)
    """By number of slots."""


def rows(directory: Path, comparison: Comparison) -> list[Row]:
    """Both sides in turn, so that a machine that slows down affects both."""
    device, precision = torch.device(comparison.device), getattr(torch, comparison.precision)
    # If the processor emulates bfloat16, ours converts the same weights to float32, as it does for users.
    computed = precision if multiplies(device, precision) else torch.float32
    ceiling = roofline.measure_ceiling(device, computed)
    voices = [make_voice(speaker) for speaker in range(SPEAKERS)]
    theirs = upstream.load_model(directory, device, precision)
    model, prompts = ours.load_model(directory, device, computed)
    (one,) = make_requests([comparison.upstream_frames], voices[:1])
    (warm_up,) = make_requests([2], voices[:1])
    upstream.decoding_rate(theirs, warm_up)
    prompt = len(prompts.prefix(one.voice)) + len(prompts.text(one))
    rates: dict[int, list[float]] = {slots: [] for slots in comparison.slots}
    against = []
    for run in range(comparison.runs):
        against.append(upstream.decoding_rate(theirs, one))
        for slots in comparison.slots:
            scheduler = ours.make_scheduler(model, prompts, slots, prompt + comparison.frames)
            if run == 0:
                ours.decoding_rate(scheduler, make_requests([2] * slots, voices))
            rates[slots].append(ours.decoding_rate(scheduler, make_requests([comparison.frames] * slots, voices)))
            del scheduler
            _release_memory()
    what = f"decoding, {comparison.size}, {comparison.precision}"
    emulated = "" if computed == precision else ", ours in float32: this processor has no bfloat16"
    table = [
        Row(
            f"{what}, {slots} slot(s), against generate_long",
            "frames/s",
            values,
            against,
            goal=comparison.goals.get(slots, ""),
            remark=f"{max(values) / FRAMES_PER_SECOND:.3g} x real time at best{emulated}",
        )
        for slots, values in rates.items()
    ]
    for slots, values in rates.items():
        step = roofline.step_cost(comparison.size, slots, prompt + comparison.frames / 2, computed)
        table += roofline.rows(f"{what}, {slots} slot(s)", values, slots, step, ceiling)
    return table


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
