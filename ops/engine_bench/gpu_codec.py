"""The codec's decoder on a GPU by itself: is it right, and how fast. Two parts, each in a process with a time limit:

    python -m ops.engine_bench.gpu_codec --out FOLDER [check] [speed]

A line of JSON for each finding is added to ``FOLDER/codec.jsonl`` as it is made. Weights are random, in the scales of
`random_weights.py`, with biases and alphas that show when they are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import torch

import ops.bench_gpu  # noqa: F401 - stands in for scipy, also in the processes that are started from here
from ops.engine_bench.findings import Findings
from ops.engine_bench.gpu_codec_check import check
from ops.engine_bench.gpu_codec_speed import speed

PARTS = {"check": check, "speed": speed}

LIMIT_S = {"check": 150, "speed": 150}
"""Seconds that a part may take; it is ended then, and what it found is kept."""


def make_codec(directory: Path) -> None:
    """Write the weights of a codec's decoder of the published size, 0.8 GB."""
    from cloner.engine import fish, random_weights
    from cloner.engine.checkpoint_files import CODEC_WEIGHTS

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


def run_part(part: str, directory: Path, out: Path) -> None:
    """In a process of its own."""
    findings = Findings(out, part)
    began = time.perf_counter()
    PARTS[part](directory, findings)
    findings.add("done", seconds=time.perf_counter() - began, failed=findings.failed)
    sys.exit(int(findings.failed))


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
