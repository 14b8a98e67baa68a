"""How fast the codec's decoder is on this GPU: from codes to audio on the host, graphs and layers alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ops.engine_bench.findings import Findings
from ops.engine_bench.gpu_codec_check import DEVICE, some_codes

BATCH_FRAMES = (512, 1024)
"""Frames a batch that are compared."""

SEGMENTS = (1, 2, 8, 16)
FRAMES = 200
FRAME_S = 2048 / 44_100


def speed(directory: Path, findings: Findings) -> None:
    """For each size of a batch, and then layer by layer."""
    for batch_frames in BATCH_FRAMES:
        findings.attempt("batches", _time_batches, directory, batch_frames)
        torch.cuda.empty_cache()
    findings.attempt("layers", _time_layers)


def _time_batches(directory: Path, batch_frames: int, findings: Findings) -> None:
    from cloner.engine.codec.precision import load_codec_decoder
    from cloner.engine.codec.ragged import GpuCodec

    began = time.perf_counter()
    codec = load_codec_decoder(directory, DEVICE, batch_frames)
    findings.add("loaded, kernels in the cache", seconds=time.perf_counter() - began, batch_frames=batch_frames)
    if not isinstance(codec, GpuCodec):
        findings.add("no kernels", chosen=type(codec).__name__)
        return
    torch.cuda.empty_cache()
    findings.add("memory", batch_frames=batch_frames, reserved_mib=torch.cuda.memory_reserved() / 2**20)
    for segments in SEGMENTS:
        codes = [some_codes(FRAMES, seed) for seed in range(segments)]
        seconds = list(_seconds(partial(_decode, codec, codes), runs=15))
        audio_s = segments * FRAMES * FRAME_S
        rates = {"rate": audio_s / median(seconds), "least": audio_s / max(seconds), "most": audio_s / min(seconds)}
        findings.add("codes to audio on the host", batch_frames=batch_frames, segments=segments, frames=FRAMES, **rates)
    for frames, graph in sorted(codec._graphs.items()):
        with torch.cuda.stream(codec.stream):
            milliseconds = _event_ms(graph.replay, runs=9)
        rate = frames * FRAME_S / milliseconds * 1000
        findings.add("graph", batch_frames=batch_frames, frames=frames, ms=milliseconds, rate=rate)
    findings.attempt("launches", _count_kernels, codec)


def _decode(codec: Any, codes: list[Tensor]) -> None:
    for _ in codec.decode(codes):
        pass


def _time_layers(findings: Findings) -> None:
    from cloner.engine.codec.precision import card_tiles
    from cloner.engine.kernel_trial.codec_cases import CodecCases
    from cloner.engine.kernels.codec.kernel_set import TRITON, CodecPlan

    with torch.inference_mode():
        for case in CodecCases(DEVICE, 512, CodecPlan(torch.float16, card_tiles(DEVICE), TRITON)).all():
            milliseconds = _event_ms(partial(case.run, TRITON), runs=7)
            rate = case.products / milliseconds / 1e9
            remark = "with the copies and the poison of its case"
            findings.add("layer, 512 frames", layer=case.layer, ms=milliseconds, tflops=rate, remark=remark)


def _count_kernels(codec: Any, findings: Findings) -> None:
    from torch.profiler import ProfilerActivity, profile

    codes = [some_codes(FRAMES, seed) for seed in range(2)]
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        _decode(codec, codes)
    rows = [row for row in seen.key_averages() if row.self_device_time_total > 0]
    findings.add("launches of 2 x 200", count=sum(row.count for row in rows))
    for row in sorted(rows, key=lambda row: -row.self_device_time_total)[:12]:
        findings.add("kernel", ms=row.self_device_time_total / 1000, count=row.count, name=row.key[:80])


def _seconds(run: Callable[[], object], runs: int) -> Iterator[float]:
    for number in range(runs + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if number > 1:  # not the first two
            yield time.perf_counter() - began


def _event_ms(run: Callable[[], object], runs: int) -> float:
    """Median by events on the current stream, of groups of three."""
    taken = []
    for number in range(runs + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(3):
            run()
        end.record()
        end.synchronize()
        if number:
            taken.append(float(begin.elapsed_time(end)) / 3)
    return median(taken)
