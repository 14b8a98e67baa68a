"""Seconds of audio that the codec decodes a second: ours against upstream's, which decodes one segment at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import isinf
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cloner.audio import SAMPLE_RATE, Audio
from cloner.engine.codec.padded import CODEC_FRAMES, CodecDecoder, snr_db
from ops.engine_bench.table import Row
from ops.engine_bench.workload import make_codes, wait_for


@dataclass(frozen=True)
class Comparison:
    """Each of `precisions` against upstream's fp32, over `segments` of about `frames`."""

    name: str
    device: str
    precisions: tuple[str, ...]
    segments: int
    frames: int
    runs: int
    goals: dict[str, str] = field(default_factory=dict)
    """By precision."""


def rows(directory: Path, comparison: Comparison) -> list[Row]:
    """Batched and one at a time, since on a CPU the latter may be faster."""
    from ops.engine_bench import upstream

    device = torch.device(comparison.device)
    codes = make_codes(comparison.segments, comparison.frames)
    on_device = [item.to(device) for item in codes]
    theirs = upstream.load_codec(directory, device)
    codecs = {}
    for precision in comparison.precisions:
        codecs[precision] = CodecDecoder(directory, device, CODEC_FRAMES)
        codecs[precision].to(getattr(torch, precision))
    ways = [(precision, how) for precision in comparison.precisions for how in ("one at a time", "batched")]
    exact = upstream.decode(theirs, codes[0])
    noise = {
        precision: snr_db(torch.from_numpy(_decoded(codecs[precision], on_device[:1])[0]), exact)
        for precision in codecs
    }
    rates: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    against = []
    # The first decoding of each allocates memory from the system.
    _rate(device, lambda: [upstream.decode(theirs, item).numpy() for item in codes[:1]])
    for precision, _ in ways:
        _rate(device, partial(_decoded_all, codecs[precision], [on_device[:1]]))
    for _ in range(comparison.runs):
        against.append(_rate(device, lambda: [upstream.decode(theirs, item).numpy() for item in codes]))
        for precision, how in ways:
            batches = [on_device] if how == "batched" else [[item] for item in on_device]
            decode = partial(_decoded_all, codecs[precision], batches)
            rates[precision, how].append(_rate(device, decode))
    return [
        Row(
            f"codec, {comparison.name}, {precision}, {how}, against codec.decode in float32",
            "audio-s/s",
            values,
            against,
            goal=comparison.goals.get(precision, ""),
            remark="the same bits" if isinf(noise[precision]) else f"signal to noise {noise[precision]:.0f} dB",
        )
        for (precision, how), values in rates.items()
    ]


def _decoded(codec: CodecDecoder, codes: list[Tensor]) -> list[Audio]:
    """Audio in the order of `codes`."""
    audio = dict(codec.decode(codes))
    return [audio[place] for place in range(len(codes))]


def _decoded_all(codec: CodecDecoder, batches: list[list[Tensor]]) -> list[Audio]:
    return [audio for batch in batches for audio in _decoded(codec, batch)]


def _rate(device: torch.device, decode: Callable[[], list[Audio]]) -> float:
    wait_for(device)
    began = time.perf_counter()
    audio = decode()
    return float(np.sum([len(item) for item in audio])) / SAMPLE_RATE / (time.perf_counter() - began)
