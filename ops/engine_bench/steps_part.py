"""Part `steps`: milliseconds a step by number of rows, its floor by bytes, and its kernels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cloner.engine.kernels.launch import recorded_launches
from cloner.engine.token_rows.device import GpuStep
from ops.engine_bench import roofline
from ops.engine_bench.step_model import Filling, compile_all, load_weights, make_device, place, step_options
from ops.engine_bench.table import Row

SHAPES = ((1, 0), (8, 0), (16, 0), (32, 0), (64, 0), (128, 0), (64, 64), (64, 256), (128, 64), (128, 256))
PLACES = (Filling(400, 272), Filling(400, 0), Filling(1000, 272), Filling(1000, 0))

GOALS = {(64, 0): "<= 2.6 ms on an H200", (128, 0): "<= 3.5 ms on an H200"}
REPLAYS, RUNS = 20, 3


@torch.inference_mode()
def measure(directory: Path, size: str, name: str, slots: int) -> Iterator[Row]:
    """Rows as they are measured. On a CPU the same with the kernels' twins, a step each."""
    device = torch.device(name)
    options = step_options(slots)
    seconds = compile_all(size, [options], device)
    yield Row("step: all kernels compiled, cold or from Triton's cache", "s", [seconds])
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    weights, _prompts = load_weights(directory, device, precision)
    step = make_device(weights, options)
    ceiling = roofline.measure_ceiling(device, precision)
    shapes = [(decode, prompts) for decode, prompts in SHAPES if decode <= slots]
    if slots > shapes[-1][0]:
        shapes.append((slots, 0))
    for decode, prompts in shapes:
        for filling in PLACES:
            filled, shared, _voices = filling
            values = [step_ms(step, decode, prompts, filling) for _ in range(RUNS)]
            cost = roofline.step_cost(size, decode, filled, precision)
            floor = (cost.weight_bytes + cost.cache_bytes) / ceiling.bandwidth * 1e3
            what = f"step, {decode} + {prompts} rows, {filled} positions, {'shared' if shared else 'alone'}"
            goal = GOALS.get((decode, prompts), "") if filling == PLACES[0] else ""
            remark = f"floor {floor:.2f} ms by bytes, each slot's own, at {ceiling.bandwidth / 1e9:.0f} GB/s"
            yield Row(what, "ms", values, goal=goal, remark=remark if not shared else "")
    if device.type == "cuda":
        with recorded_launches() as found:
            step.built.step.run(shapes[-1][0], 0)
        yield Row("step without prompts: kernels", "kernels", [len(found)], goal="<= 341")
        for decode in sorted({64, 128, slots}):
            if decode <= slots:
                yield from _profiled(step, decode)


def step_ms(step: GpuStep, decode: int, prompts: int, filling: Filling) -> float:
    """A step's milliseconds, over so many replays of its graph."""
    if not step.weights.head.is_cuda:
        place(step, decode, filling)
        began = time.perf_counter()
        step.built.step.run(decode, prompts)
        return (time.perf_counter() - began) * 1e3
    graph = step.graph(decode, prompts)
    place(step, decode, filling)
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(REPLAYS):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / REPLAYS


def _profiled(step: GpuStep, decode: int) -> Iterator[Row]:
    """Where the time goes, by kernel."""
    from torch.profiler import ProfilerActivity, profile

    graph = step.graph(decode, 0)
    place(step, decode, PLACES[0])
    graph.replay()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as run:
        graph.replay()
        torch.cuda.synchronize()
    kernels = [item for item in run.key_averages() if item.self_device_time_total]
    for item in sorted(kernels, key=lambda item: -item.self_device_time_total)[:8]:
        each = item.self_device_time_total / item.count
        what = f"kernel {item.key[:40]}, {decode} rows"
        yield Row(what, "ms", [item.self_device_time_total / 1e3], remark=f"{item.count} x {each:.2f} us")
