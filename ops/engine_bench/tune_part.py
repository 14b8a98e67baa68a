"""Part `tune`: a step's milliseconds with other choices than the tables', one changed at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from cloner.engine.kernels import sampling
from ops.engine_bench.step_model import compile_all, load_weights, make_device, step_options
from ops.engine_bench.steps_part import step_ms
from ops.engine_bench.table import Row

Change = tuple[object, str, Any]


def changes() -> Iterator[tuple[str, list[Change]]]:
    """Names, and attributes to be replaced."""
    from cloner.engine import token_step

    yield "as it is", []
    for warps in (1, 2, 8):
        yield f"sample_next with {warps} warps", [(sampling, "NEXT_WARPS", warps)]
    for warps in (8, 32):
        yield f"sample_first with {warps} warps", [(sampling, "FIRST_WARPS", warps)]
    for parts in ((1, 1), (2, 2), (3, 1)):
        yield f"attention in {parts} parts", [(token_step, "attention_parts", lambda _decode, parts=parts: parts)]


@torch.inference_mode()
def measure(directory: Path, size: str, name: str, slots: int) -> Iterator[Row]:
    """At 64 and 128 rows, 400 positions, references shared."""
    device = torch.device(name)
    options = step_options(slots)
    compile_all(size, [options], device)
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    weights, _prompts = load_weights(directory, device, precision)
    step = make_device(weights, options)
    for what, replaced in changes():
        with ExitStack() as stack:
            for target, attribute, value in replaced:
                stack.enter_context(patch.object(target, attribute, value))
            step.built.graphs.clear()
            for rows in (64, 128):
                if rows <= slots:
                    values = [step_ms(step, rows, 0, 400, 272) for _ in range(3)]
                    yield Row(f"tune: {what}, {rows} rows", "ms", values)
