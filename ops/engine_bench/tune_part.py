"""Part `tune`: a step's milliseconds with each candidate in place of what the product has.

Before it is timed, a candidate is compared with today's kernel on the card: call by call on the same input, and by the
step's logits. One that differs, or fails, is reported and not timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernels.launch import Launch, distinct, recorded_launches
from cloner.engine.kernels.step.kernel_set import Kernel
from cloner.engine.kernels.step.layout import Scratch
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.token_rows.device import GpuStep, StepOptions
from cloner.engine.token_rows.weights import ModelSizes, StepWeights
from ops.engine_bench.candidates import CANDIDATES
from ops.engine_bench.candidates.candidate import Candidate
from ops.engine_bench.step_model import Filling, load_weights, make_device, place, step_options
from ops.engine_bench.steps_part import step_ms
from ops.engine_bench.table import Row

TODAY = Candidate("as it is")
SHAPES = ((64, 0), (128, 0), (64, 256))
"""Decode and prompt rows."""

PLACES = (Filling(400, 272), Filling(1000, 272), Filling(400, 272, voices=64))
"""Steps with prompt rows are measured at the first."""

RUNS = 3
CALL_TOLERANCE, STEP_TOLERANCE = 1e-2, 5e-2
"""Greatest norm of a row's difference, relative to the row: of a kernel's output on the same input, where rounding to
bfloat16 makes some 4e-3 and one key of 400 that is left out 3e-2, and of the logits, which are 1e-2 apart in two right
steps in bfloat16."""


@torch.inference_mode()
def measure(directory: Path, size: str, name: str, slots: int, text: str) -> Iterator[Row]:
    """Today's step, the candidates whose name contains `text`, and today's again. On a CPU, Triton's kernels fail."""
    device = torch.device(name)
    on_gpu = device.type == "cuda"
    places = tuple(number for number, candidate in enumerate(CANDIDATES) if text in candidate.name)
    options = step_options(slots)
    shapes = tuple(dict.fromkeys([*(shape for shape in SHAPES if shape[0] <= slots), (slots, 0)]))
    if on_gpu:
        compile_all(Work(size, options, Architecture.of(device), shapes, places))
    weights, _prompts = load_weights(directory, device, torch.bfloat16 if on_gpu else torch.float32)
    step = make_device(weights, options)
    torch.manual_seed(0)
    for layer in step.built.cache.memory:
        layer.normal_()
    for candidate in (TODAY, *(CANDIDATES[number] for number in places), TODAY):
        yield from _measured(step, candidate, shapes)


def _measured(step: GpuStep, candidate: Candidate, shapes: Sequence[tuple[int, int]]) -> Iterator[Row]:
    placed = [(shape, where) for shape in shapes for where in (PLACES[:1] if shape[1] else PLACES)]
    try:
        off = max(difference(step, candidate, *each) for each in placed)
        remark = "" if candidate is TODAY else f"output as today's, off by {off:.1e} at most"
        step.built.graphs.clear()
        with candidate.in_place(step.built.step):
            for (decode, prompts), where in placed:
                values = [step_ms(step, decode, prompts, where) for _ in range(RUNS)]
                rows = f"{decode} + {prompts}" if prompts else str(decode)
                what = f"{candidate.name}, {rows} rows, {where.positions} positions, {where.voices} voices"
                yield Row(f"tune: {what}", "ms", values, remark=remark)
    except Exception as error:  # noqa: BLE001 - it is the finding; the other candidates are still measured
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        yield Row(f"tune: {candidate.name}", "", [float("nan")], remark=f"not timed: {reason}")


def difference(step: GpuStep, candidate: Candidate, shape: tuple[int, int], where: Filling) -> float:
    """How far the outputs of a candidate's kernels are from today's on the same input: the greatest relative norm of a
    row's difference. Raises `ValueError` where a candidate differs by more than is allowed."""
    rows = shape[0]
    place(step, rows, where)
    records = step.built.rows.decode.records.clone()
    step.built.step.run(*shape)
    logits = step.built.step.logits[:rows].clone()
    step.built.rows.decode.records.copy_(records)
    calls: list[float] = []
    kernels = step.built.step.kernels
    compared = {name: _beside(getattr(kernels, name), other, calls) for name, other in candidate.kernels.items()}
    with replace(candidate, kernels=compared).in_place(step.built.step):
        step.built.step.run(*shape)
    off, of_logits = max(calls, default=0.0), _off(step.built.step.logits[:rows], logits)
    if not (off <= CALL_TOLERANCE and of_logits <= STEP_TOLERANCE):
        raise ValueError(
            f"with {rows} + {shape[1]} rows at {where.positions} positions it is off today's output by {off:.1e}"
            f" (at most {CALL_TOLERANCE}), and by {of_logits:.1e} in the logits (at most {STEP_TOLERANCE})"
        )
    return max(off, 0.0 if calls else of_logits)


def _beside(today: Kernel, other: Kernel, found: list[float]) -> Kernel:
    """`other`, which is compared at each call with `today` in all that both could have written."""

    def both(*arguments: Any, **named: Any) -> None:
        tensors = list(_tensors((*arguments, *named.values())))
        before = [tensor.clone() for tensor in tensors]
        today(*arguments, **named)
        expected = [tensor.clone() for tensor in tensors]
        for tensor, was in zip(tensors, before, strict=True):
            tensor.copy_(was)
        other(*arguments, **named)
        found.extend(_off(*pair) for pair in zip(tensors, expected, strict=True))

    return both


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors among a kernel's arguments but those of `Scratch`, which hold what they may."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value) and not isinstance(value, Scratch):
        for each in fields(value):
            yield from _tensors(getattr(value, each.name))


def _off(ours: Tensor, expected: Tensor) -> float:
    """The greatest norm of a row's difference, relative to the row; of integers, infinite if they differ."""
    if torch.equal(ours, expected):
        return 0.0
    if not ours.is_floating_point():
        return float("inf")
    ours, expected = ours.float(), expected.float()
    off = (ours - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-9)
    return float(off.max())


@dataclass(frozen=True)
class Work:
    """What is compiled: steps of these `shapes`, decode and prompt rows, with today's kernels, with the candidates at
    `places` of the list, and with today's kernels under a candidate's changes, where they are compared."""

    size: str
    options: StepOptions
    gpu: Architecture
    shapes: tuple[tuple[int, int], ...]
    places: tuple[int, ...] = ()

    def launches(self) -> list[Launch]:
        """Every kernel launch, none of them made."""
        weights = StepWeights.empty(
            ModelSizes.of_config(CONFIGS[Preset(self.size)]), torch.device("meta"), torch.bfloat16
        )
        step = GpuStep(weights, self.options, gpu=self.gpu).built.step
        with recorded_launches() as found:
            for candidate in (TODAY, *(CANDIDATES[number] for number in self.places)):
                for kernels in (candidate.kernels, {}) if candidate.changes else (candidate.kernels,):
                    with replace(candidate, kernels=kernels).in_place(step):
                        for shape in self.shapes:
                            step.run(*shape)
        return found


def compile_all(work: Work) -> None:
    """Compile into Triton's cache, one process a core."""
    processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_compile_share, [work] * processes, range(processes), [processes] * processes))


def _compile_share(work: Work, number: int, processes: int) -> None:
    for launch in distinct(work.launches())[number::processes]:
        with suppress(Exception):  # a candidate that does not compile says so when it is measured
            launch.compile()
