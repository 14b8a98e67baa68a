"""Part `codec`: the codec's kernels, graphs and segments against plain torch and upstream's fp32, and their speed.

Weights are random, in the scales of `random_weights.py`, with biases and alphas that show when they are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import torch

from ops.engine_bench.findings import Findings
from ops.engine_bench.gpu_codec_check import check
from ops.engine_bench.gpu_codec_speed import speed
from ops.engine_bench.table import Row

UNITS = {"rate": "audio-s/s", "ms": "ms", "seconds": "s", "snr_db": "dB", "error": "of the norm", "reserved_mib": "MiB"}
"""What a finding's value is measured in, by its name; the first that a finding has is the row's value."""


def measure(_directory: Path, name: str) -> Iterator[Row]:
    """Rows as they are found; none without a GPU. Raises `RuntimeError` at the end if a check failed."""
    if name == "cpu":
        return
    queue: SimpleQueue[Row | None] = SimpleQueue()
    findings = _Rows(queue)
    thread = Thread(target=_work, args=(findings, queue), daemon=True)
    thread.start()
    while (row := queue.get()) is not None:
        yield row
    if findings.failures:
        raise RuntimeError("; ".join(findings.failures))


def make_codec(directory: Path) -> None:
    """Write the weights of a codec's decoder of the published size, 0.8 GB."""
    from cloner.engine.checkpoint import fish, random_weights
    from cloner.engine.checkpoint.files import CODEC_WEIGHTS

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


def _work(findings: Findings, queue: SimpleQueue[Row | None]) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="cloner-codec-") as folder:
            findings.attempt("weights", lambda found: _written(Path(folder), found))
            findings.attempt("speed", speed, Path(folder))
            findings.attempt("check", check, Path(folder))
    finally:
        queue.put(None)


def _written(directory: Path, _findings: Findings) -> None:
    make_codec(directory)


class _Rows(Findings):
    """Findings as rows of the table."""

    def __init__(self, queue: SimpleQueue[Row | None]) -> None:
        super().__init__(None, "codec")
        self._queue = queue
        self.failures: list[str] = []

    def add(self, what: str, **values: object) -> None:
        if "failed" in values:
            self.failures.append(f"{what}: {values['failed']}")
        if values.get("ok") is False:
            self.failures.append(f"{what}: {values}")
        key = next((key for key in UNITS if isinstance(values.get(key), int | float)), None)
        remark = ", ".join(f"{name} {value}" for name, value in values.items() if name not in {key, "where"})
        value, unit = (float(str(values[key])), UNITS[key]) if key else (float("ok" in values or not values), "")
        self._queue.put(Row(f"codec: {what}", unit, [value], remark=remark))
