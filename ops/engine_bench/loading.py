"""Seconds to load both models, each time in a new process, imports not included."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from cloner.engine.codec.padded import CODEC_FRAMES, CodecDecoder
from ops.engine_bench import ours, upstream
from ops.engine_bench.children import in_child
from ops.engine_bench.table import Row

CPU = torch.device("cpu")


def rows(directory: Path, size: str, runs: int, goal: str) -> list[Row]:
    """Ours loads the codec's decoder; the encoder is loaded when a recording has to be encoded."""
    pairs = [(in_child(load_upstream, directory), in_child(load_ours, directory)) for _ in range(runs)]
    return [
        Row(
            f"loading, {size}, bfloat16, against init_model and the codec's load_model",
            "s",
            [seconds for _, seconds in pairs],
            [seconds for seconds, _ in pairs],
            goal=goal,
            less_is_better=True,
        )
    ]


def load_ours(directory: Path) -> float:
    """Text2Semantic as the batched engine uses it, and the codec."""
    began = time.perf_counter()
    ours.load_model(directory, CPU, torch.bfloat16)
    CodecDecoder(directory, CPU, CODEC_FRAMES)
    return time.perf_counter() - began


def load_upstream(directory: Path) -> float:
    """The same models by upstream's functions."""
    began = time.perf_counter()
    upstream.load_model(directory, CPU, torch.bfloat16)
    upstream.load_codec(directory, CPU)
    return time.perf_counter() - began
