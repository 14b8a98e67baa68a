"""Whether the codec's decoder is right on this GPU: each kernel, each graph, whole segments."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ops.engine_bench.findings import Findings

DEVICE = torch.device("cuda")


def check(directory: Path, findings: Findings) -> None:
    """Each kernel against plain torch; whole segments against upstream's fp32, for every graph."""
    from cloner.engine.checkpoint import fish

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    findings.attempt("loading", _check_loading, directory)
    for dtype in (torch.float16, torch.bfloat16):
        findings.attempt("kernels", _check_kernels, dtype)
    upstream = fish.load_codec(directory, DEVICE, fish.CodecPart.DECODER)
    for dtype in (torch.float16, torch.bfloat16):
        findings.attempt("graphs", _check_graphs, upstream, dtype)
    findings.attempt("ragged", _check_ragged, upstream)
    findings.attempt("plain torch", _check_plain, upstream)
    findings.attempt("memory", _check_memory, upstream)


def _check_loading(directory: Path, findings: Findings) -> None:
    from cloner.engine.codec.precision import load_codec_decoder

    began = time.perf_counter()
    chosen = load_codec_decoder(directory, DEVICE, 512)
    seconds = time.perf_counter() - began
    findings.add("loaded, kernels compiled", seconds=seconds, chosen=type(chosen).__name__, dtype=str(chosen.dtype))


def _check_kernels(dtype: torch.dtype, findings: Findings) -> None:
    from cloner.engine.codec.precision import card_tiles
    from cloner.engine.kernel_trial.codec_cases import MOST_ERROR, CodecCases
    from cloner.engine.kernels.codec.kernel_set import TRITON, CodecPlan

    with torch.inference_mode():
        for case in CodecCases(DEVICE, 26, CodecPlan(dtype, card_tiles(DEVICE), TRITON)).all():
            error = case.error(TRITON)
            well = error < MOST_ERROR[dtype]
            findings.add("kernel", layer=case.layer, kernel=case.kernel, dtype=str(dtype), error=error, ok=well)


def _made(upstream: Any, dtype: torch.dtype) -> Any:
    """A warm `GpuCodec` with the kernels."""
    from cloner.engine.codec.precision import card_tiles
    from cloner.engine.codec.ragged import GpuCodec
    from cloner.engine.kernels.codec.kernel_set import TRITON, CodecPlan

    codec = GpuCodec(upstream, DEVICE, 512, CodecPlan(dtype, card_tiles(DEVICE), TRITON))
    codec.warm_up()
    return codec


def _check_graphs(upstream: Any, dtype: torch.dtype, findings: Findings) -> None:
    """Signal to noise of the worse of two segments, for each number of frames that there is a graph for."""
    codec = _made(upstream, dtype)
    for frames in range(32, 513, 32):
        lengths = [frames * 3 // 5, frames - frames * 3 // 5 - 2]
        found = _decibels(codec, upstream, lengths)
        findings.add("graph", dtype=str(dtype), frames=frames, decibels=found, ok=found > 30)


def _check_ragged(upstream: Any, findings: Findings) -> None:
    from cloner.engine.codec.padded import snr_db

    codec = _made(upstream, torch.float16)
    codes = [some_codes(frames, seed) for seed, frames in enumerate((200, 83, 120, 31))]
    together = dict(codec.decode(codes))
    for place, item in enumerate(codes):
        ((_, alone),) = codec.decode([item])
        one, other = torch.from_numpy(together[place]), torch.from_numpy(alone)
        difference = (one - other).abs().max().item()
        findings.add("among others and alone", frames=item.shape[1], decibels=snr_db(one, other), greatest=difference)
    again = dict(codec.decode(codes))
    findings.add("the same twice", ok=all((again[place] == together[place]).all() for place in together))
    findings.add("longer than a batch", frames=1100, decibels=_decibels(codec, upstream, [1100]))


def _check_plain(upstream: Any, findings: Findings) -> None:
    """Plain torch functions in the place of kernels, in graphs too."""
    from cloner.engine.codec.ragged import GpuCodec
    from cloner.engine.kernels.codec.kernel_set import CodecPlan

    plain = GpuCodec(upstream, DEVICE, 128, CodecPlan.plain(torch.float16, 4))
    plain.warm_up()
    findings.add("plain torch in graphs", decibels=_decibels(plain, upstream, [80, 40]))


def _check_memory(upstream: Any, findings: Findings) -> None:
    """Let memory run out: graphs are captured anew in what is left."""
    codec = _made(upstream, torch.float16)
    codec._graphs.clear()
    codec._pool = torch.cuda.graph_pool_handle()
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 400 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    audio = dict(codec.decode([some_codes(200, seed) for seed in range(4)]))
    torch.cuda.set_per_process_memory_fraction(1.0)
    findings.add("memory ran out", answered=len(audio), batch_frames=codec._batch_frames)


def _decibels(codec: Any, upstream: Any, lengths: list[int]) -> float:
    from cloner.engine.codec.padded import snr_db
    from cloner.engine.codec.precision import exact_audio

    codes = [some_codes(frames, frames) for frames in lengths]
    audio = dict(codec.decode(codes))
    return min(snr_db(torch.from_numpy(audio[place]), exact_audio(upstream, item)) for place, item in enumerate(codes))


def some_codes(frames: int, seed: int) -> Tensor:
    """Random codes on the GPU."""
    from cloner.batch import CODEBOOK_SIZES

    random = torch.Generator().manual_seed(seed)
    codes = [torch.randint(size, (frames,), generator=random) for size in CODEBOOK_SIZES]
    return torch.stack(codes).int().cuda()
