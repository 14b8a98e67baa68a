"""Part `upstream`: fish-speech's own code, one text at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ops.engine_bench import codec
from ops.engine_bench.children import multiplies
from ops.engine_bench.table import Row
from ops.engine_bench.workload import FRAMES_PER_SECOND, make_requests, make_voice

RUNS = 2


def measure(directory: Path, name: str, frames: int, comparison: codec.Comparison) -> Iterator[Row]:
    """Frames a second of `generate_long`, without the prompt; then its codec against ours as a CPU has it."""
    from ops.engine_bench import upstream

    device = torch.device(name)
    precision = torch.bfloat16 if multiplies(device, torch.bfloat16) else torch.float32
    model = upstream.load_model(directory, device, precision)
    warm_up, request = make_requests([2, frames], [make_voice(0)])
    upstream.decoding_rate(model, warm_up)
    rates = [upstream.decoding_rate(model, request) for _ in range(RUNS)]
    remark = f"{max(rates) / FRAMES_PER_SECOND:.3g} x real time at best"
    yield Row("upstream: decoding, generate_long", "frames/s", rates, remark=remark)
    del model
    yield from codec.rows(directory, comparison)
