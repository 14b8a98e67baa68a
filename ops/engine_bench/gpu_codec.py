"""The codec's decoder on a GPU by itself: is it right, and how fast. Two parts, each in a process with a time limit:

    python -m ops.engine_bench.gpu_codec --out FOLDER [check] [speed]

A line of JSON for each finding is added to ``FOLDER/codec.jsonl`` as it is made. Weights are random, in the scales of
`random_weights.py`, with biases and alphas that show when they are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

import ops.bench_gpu  # noqa: F401 - stands in for scipy, also in the processes that are started from here

LIMIT_S = {"check": 150, "speed": 150}
"""Seconds that a part may take; it is ended then, and what it found is kept."""

BATCH_FRAMES = (512, 1024)
"""Frames a batch that are compared."""

SEGMENTS = (1, 2, 8, 16)
FRAMES = 200
FRAME_S = 2048 / 44_100


class Findings:
    """Written as they are made."""

    def __init__(self, path: Path, part: str) -> None:
        self._path = path
        self._part = part

    def add(self, what: str, **values: object) -> None:
        line = json.dumps({"part": self._part, "what": what, **values})
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def make_codec(directory: Path) -> None:
    """Write the weights of a codec's decoder of the published size, 0.8 GB."""
    from cloner.engine import fish, random_weights
    from cloner.engine.checkpoint import CODEC_WEIGHTS

    codec = fish.build_codec(directory)
    codec.encoder = codec.quantizer.downsample = codec.quantizer.pre_module = None
    weights = random_weights.codec_weights(codec, 0)
    random = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        if name.endswith("bias"):
            weights[name] = torch.randn(weight.shape, generator=random) * 0.05
        elif name.endswith("alpha"):
            weights[name] = torch.exp(0.3 * torch.randn(weight.shape, generator=random))
    torch.save(weights, directory / CODEC_WEIGHTS)


def check(directory: Path, findings: Findings) -> None:
    """Each kernel against plain torch; whole segments against upstream's fp32, for every graph."""
    from cloner.engine import fish
    from cloner.engine.codec_precision import card_tiles, load_codec_decoder
    from cloner.engine.gpu_codec import GpuCodec
    from cloner.engine.kernels.codec import TORCH, TRITON, CodecPlan
    from cloner.engine.kernels.codec_check import MOST_ERROR, CodecCases
    from cloner.engine.kernels.codec_tiles import untiled

    device = torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    began = time.perf_counter()
    chosen = load_codec_decoder(directory, device, 512)
    findings.add("loaded, kernels compiled", seconds=time.perf_counter() - began, chosen=type(chosen).__name__)
    findings.add("precision", dtype=str(chosen.dtype), kernels=isinstance(chosen, GpuCodec))
    del chosen
    tiles = card_tiles(device)
    for dtype in (torch.float16, torch.bfloat16):
        plan = CodecPlan(dtype, tiles, TRITON)
        with torch.inference_mode():
            for case in CodecCases(device, 26, plan).all():
                error = case.error(TRITON)
                well = error < MOST_ERROR[dtype]
                findings.add("kernel", layer=case.layer, kernel=case.kernel, dtype=str(dtype), error=error, ok=well)
        torch.cuda.empty_cache()
    upstream = fish.load_codec(directory, device, fish.CodecPart.DECODER)
    for dtype in (torch.float16, torch.bfloat16):
        codec = GpuCodec(upstream, device, 512, CodecPlan(dtype, tiles, TRITON))
        codec.warm_up()
        _check_graphs(codec, upstream, findings)
    codec = GpuCodec(upstream, device, 512, CodecPlan(torch.float16, tiles, TRITON))
    codec.warm_up()
    _check_ragged(codec, upstream, findings)
    _check_memory(codec, findings)
    plain = GpuCodec(upstream, device, 128, CodecPlan(torch.float16, untiled(4), TORCH))
    plain.warm_up()
    findings.add("plain torch in graphs", decibels=_decibels(plain, upstream, [80, 40]))


def _check_graphs(codec: object, upstream: object, findings: Findings) -> None:
    """Signal to noise of the worse of two segments, for each number of frames that there is a graph for."""
    for frames in range(32, 513, 32):
        lengths = [frames * 3 // 5, frames - frames * 3 // 5 - 2]
        found = _decibels(codec, upstream, lengths)
        findings.add("graph", dtype=str(codec.dtype), frames=frames, decibels=found, ok=found > 30)  # type: ignore[attr-defined]


def _check_ragged(codec: object, upstream: object, findings: Findings) -> None:
    from cloner.engine.codec import snr_db

    codes = [some_codes(frames, seed) for seed, frames in enumerate((200, 83, 120, 31))]
    together = dict(codec.decode(codes))  # type: ignore[attr-defined]
    for place, item in enumerate(codes):
        ((_, alone),) = codec.decode([item])  # type: ignore[attr-defined]
        one, other = torch.from_numpy(together[place]), torch.from_numpy(alone)
        difference = (one - other).abs().max().item()
        findings.add("among others and alone", frames=item.shape[1], decibels=snr_db(one, other), greatest=difference)
    again = dict(codec.decode(codes))  # type: ignore[attr-defined]
    findings.add("the same twice", ok=all((again[place] == together[place]).all() for place in together))
    findings.add("longer than a batch", frames=1100, decibels=_decibels(codec, upstream, [1100]))


def _check_memory(codec: object, findings: Findings) -> None:
    """Let memory run out: graphs are captured anew in what is left."""
    codec._graphs.clear()  # type: ignore[attr-defined]
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 500 * 2**20) / total)
    codec._pool = torch.cuda.graph_pool_handle()  # type: ignore[attr-defined]
    audio = dict(codec.decode([some_codes(200, seed) for seed in range(4)]))  # type: ignore[attr-defined]
    torch.cuda.set_per_process_memory_fraction(1.0)
    findings.add("memory ran out", answered=len(audio), batch_frames=codec._batch_frames)  # type: ignore[attr-defined]


def _decibels(codec: object, upstream: object, lengths: list[int]) -> float:
    from cloner.engine.codec import snr_db
    from cloner.engine.codec_precision import exact_audio

    codes = [some_codes(frames, frames) for frames in lengths]
    audio = dict(codec.decode(codes))  # type: ignore[attr-defined]
    return min(snr_db(torch.from_numpy(audio[place]), exact_audio(upstream, item)) for place, item in enumerate(codes))


def some_codes(frames: int, seed: int) -> Tensor:
    """Random codes on the GPU."""
    from cloner.batch import CODEBOOK_SIZES

    random = torch.Generator().manual_seed(seed)
    codes = [torch.randint(size, (frames,), generator=random) for size in CODEBOOK_SIZES]
    return torch.stack(codes).int().cuda()


def speed(directory: Path, findings: Findings) -> None:
    """Codes to audio on the host, graphs alone, layers alone, kernels a batch, memory."""
    from cloner.engine.codec_precision import card_tiles, load_codec_decoder
    from cloner.engine.gpu_codec import GpuCodec
    from cloner.engine.kernels.codec import TRITON, CodecPlan
    from cloner.engine.kernels.codec_check import CodecCases

    device = torch.device("cuda")
    for batch_frames in BATCH_FRAMES:
        began = time.perf_counter()
        codec = load_codec_decoder(directory, device, batch_frames)
        findings.add("loaded, kernels in the cache", seconds=time.perf_counter() - began, batch_frames=batch_frames)
        if not isinstance(codec, GpuCodec):
            findings.add("no kernels", chosen=type(codec).__name__)
            return
        torch.cuda.empty_cache()
        findings.add("memory", batch_frames=batch_frames, reserved_mib=torch.cuda.memory_reserved() / 2**20)
        for segments in SEGMENTS:
            codes = [some_codes(FRAMES, seed) for seed in range(segments)]
            seconds = list(_seconds(lambda codes=codes, codec=codec: list(codec.decode(codes)), runs=15))
            audio_s = segments * FRAMES * FRAME_S
            findings.add(
                "codes to audio on the host", batch_frames=batch_frames, segments=segments, frames=FRAMES,
                rate=audio_s / median(seconds), least=audio_s / max(seconds), most=audio_s / min(seconds),
            )  # fmt: skip
        for frames, graph in sorted(codec._graphs.items()):
            with torch.cuda.stream(codec.stream):
                milliseconds = _event_ms(graph.replay, runs=9)
            rate = frames * FRAME_S / milliseconds * 1000
            findings.add("graph", batch_frames=batch_frames, frames=frames, ms=milliseconds, rate=rate)
        _count_kernels(codec, findings)
        del codec, graph
        torch.cuda.empty_cache()
    with torch.inference_mode():
        for case in CodecCases(device, 512, plan := CodecPlan(torch.float16, card_tiles(device), TRITON)).all():
            milliseconds = _event_ms(lambda case=case: case.run(plan.kernels), runs=7)
            copies = "with the copies and the poison of its case"
            rate = case.products / milliseconds / 1e9
            findings.add("layer, 512 frames", layer=case.layer, ms=milliseconds, tflops=rate, remark=copies)


def _count_kernels(codec: object, findings: Findings) -> None:
    from torch.profiler import ProfilerActivity, profile

    codes = [some_codes(FRAMES, seed) for seed in range(2)]
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        list(codec.decode(codes))  # type: ignore[attr-defined]
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
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(3):
            run()
        end.record()
        end.synchronize()
        if number:
            taken.append(begin.elapsed_time(end) / 3)
    return median(taken)


def run_part(part: str, directory: Path, out: Path) -> None:
    """In a process of its own."""
    findings = Findings(out, part)
    began = time.perf_counter()
    {"check": check, "speed": speed}[part](directory, findings)
    findings.add("done", seconds=time.perf_counter() - began)


def main() -> int:
    """1 if a part failed or ran out of time."""
    parser = argparse.ArgumentParser(description="Check and time the codec's decoder on one GPU.")
    parser.add_argument("parts", nargs="*", choices=[[], *LIMIT_S], default=list(LIMIT_S))
    parser.add_argument("--out", type=Path, default=Path(), help="folder of codec.jsonl")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out / "codec.jsonl"
    failed = False
    with tempfile.TemporaryDirectory(prefix="cloner-codec-") as folder:
        directory = Path(folder)
        began = time.perf_counter()
        make_codec(directory)
        Findings(out, "start").add("weights written", seconds=time.perf_counter() - began)
        for part in options.parts or LIMIT_S:
            process = get_context("spawn").Process(target=run_part, args=(part, directory, out))
            process.start()
            process.join(LIMIT_S[part])
            if process.is_alive():
                process.kill()
                process.join()
                Findings(out, part).add("ran out of time", seconds=LIMIT_S[part])
            failed |= process.exitcode != 0
    return int(failed)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "8")
    sys.exit(main())
