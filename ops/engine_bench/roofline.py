"""Lower bounds for the time of a step, from the bytes it reads and from its floating-point operations.

With few slots a step is bound by memory, with many by arithmetic, and on a CPU by arithmetic. A step cannot be faster
than the higher bound, unless the weights stay in the processor's cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from cloner.batch import CODEBOOK_SIZES
from cloner.engine.checkpoint.presets import CONFIGS, Preset
from ops.engine_bench.table import Row
from ops.engine_bench.workload import wait_for

FAST_PASSES = len(CODEBOOK_SIZES) - 1
"""Passes of the fast transformer in a step; codebooks 0 and 1 take one pass."""

COPY_BYTES = {"cpu": 2**28, "cuda": 2**32}
MATRIX = {"cpu": 2048, "cuda": 8192}
TRIALS = 5


@dataclass(frozen=True)
class Ceiling:
    """The device's measured limits: bytes a second, and floating-point operations a second."""

    bandwidth: float
    flops: float


@dataclass(frozen=True)
class Step:
    """The cost of a step: weights and cache that are read, in bytes, and floating-point operations."""

    weight_bytes: float
    cache_bytes: float
    flops: float


@torch.inference_mode()
def measure_ceiling(device: torch.device, precision: torch.dtype) -> Ceiling:
    """The better of a large copy and a large triad, and a square matrix product in `precision`."""
    size = COPY_BYTES[device.type]
    a, b, c = (torch.ones(size // 4, dtype=torch.float32, device=device) for _ in range(3))
    copied = 2 * size / _least_s(device, lambda: a.copy_(b))
    summed = 3 * size / _least_s(device, lambda: torch.add(b, c, alpha=3.0, out=a))
    n = MATRIX[device.type]
    x, y = (torch.randn(n, n, device=device).to(precision) for _ in range(2))
    return Ceiling(max(copied, summed), 2 * n**3 / _least_s(device, lambda: x @ y))


def step_cost(size: str, slots: int, positions: float, precision: torch.dtype) -> Step:
    """One frame in each of `slots`, with attention over `positions` on average."""
    config = CONFIGS[Preset(size)]
    slow = _stack(config, "", config["n_layer"])
    fast = _stack(config, "fast_", config["n_fast_layer"])
    dim, fast_dim = config["dim"], config.get("fast_dim", config["dim"])
    heads = (CODEBOOK_SIZES[0] + 1) * dim + FAST_PASSES * CODEBOOK_SIZES[1] * fast_dim
    weights = slow + FAST_PASSES * fast + heads
    kv = 2 * config["n_layer"] * config["n_local_heads"] * config["head_dim"]
    attention = 4 * config["n_layer"] * config["n_head"] * config["head_dim"] * positions
    return Step(
        weight_bytes=weights * precision.itemsize,
        cache_bytes=slots * positions * kv * precision.itemsize,
        flops=slots * (2 * (weights + fast) + attention),  # two positions in the first fast pass
    )


def rows(what: str, rates: list[float], slots: int, step: Step, ceiling: Ceiling) -> list[Row]:
    """The fractions of both bounds that were reached, from the frames a second of each run."""
    moved = step.weight_bytes + step.cache_bytes
    memory_s, arithmetic_s = moved / ceiling.bandwidth, step.flops / ceiling.flops
    steps = [rate / slots for rate in rates]
    return [
        Row(
            f"{what}: part of what memory allows",
            "steps/s",
            steps,
            [1 / memory_s] * len(steps),
            remark=(
                f"a step reads {step.weight_bytes / 1e6:.0f} MB of weights and {step.cache_bytes / 1e6:.0f} MB of cache"
                f" at {ceiling.bandwidth / 1e9:.3g} GB/s: {memory_s * 1e3:.3g} ms; it took"
                f" {1e3 / median(steps):.3g} ms"
            ),
        ),
        Row(
            f"{what}: part of what arithmetic allows",
            "steps/s",
            steps,
            [1 / arithmetic_s] * len(steps),
            remark=(
                f"{step.flops / 1e9:.3g} GFLOP a step at {ceiling.flops / 1e9:.4g} GFLOP/s: {arithmetic_s * 1e3:.3g} ms"
            ),
        ),
    ]


def _stack(config: dict[str, Any], prefix: str, layers: int) -> int:
    """Number of weights in a transformer's layers; sizes that the fast one does not set are those of the slow one."""

    def size(name: str, default: str) -> int:
        return int(config.get(prefix + name, config[default]))

    dim, heads, kv_heads = size("dim", "dim"), size("n_head", "n_head"), size("n_local_heads", "n_local_heads")
    head_dim, between = size("head_dim", "head_dim"), size("intermediate_size", "intermediate_size")
    return layers * dim * ((2 * heads + 2 * kv_heads) * head_dim + 3 * between)


def _least_s(device: torch.device, work: Callable[[], object]) -> float:
    times = []
    for _ in range(TRIALS + 1):  # the first warms up
        wait_for(device)
        began = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])
