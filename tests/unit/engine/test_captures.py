"""Captures of graphs, and what must not happen beside another thread's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from cloner.engine.checkpoint import fish
from cloner.engine.codec.ragged import GpuCodec
from cloner.engine.kernels.codec.kernel_set import CodecPlan
from cloner.engine.memory import ONE_CAPTURES
from cloner.engine.token_rows.device import GpuStep
from tests.support.engine_requests import CPU
from tests.unit.engine.token_rows.rows import make_row_scheduler

CALLS = ("synchronize", "empty_cache")
"""What breaks another thread's capture."""


def is_free() -> bool:
    """Whether another thread could capture now."""
    found: list[bool] = []

    def take() -> None:
        found.append(ONE_CAPTURES.acquire(blocking=False))
        if found[0]:
            ONE_CAPTURES.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def free_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What was called of a GPU that is not there, in that order, and whether another thread could capture then."""
    noted: dict[str, bool] = {}

    def note(name: str) -> None:
        noted[name] = is_free()

    class Graph:
        def capture_begin(self, **_options: object) -> None:
            note("capture_begin")

        def capture_end(self) -> None:
            note("capture_end")

    @contextmanager
    def graph(*_arguments: object, **_options: object) -> Iterator[None]:
        note("capture_begin")
        yield
        note("capture_end")

    for name in CALLS:
        monkeypatch.setattr(torch.cuda, name, lambda name=name: note(name))
    monkeypatch.setattr(torch.cuda, "current_blas_handle", lambda: note("current_blas_handle"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    for name in ("current_stream", "graph_pool_handle", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    return noted


@pytest.fixture
def codec(tiny: Path) -> GpuCodec:
    codec = GpuCodec(fish.load_codec(tiny, CPU, fish.CodecPart.DECODER), CPU, 64, CodecPlan.plain(torch.float32, 4))
    codec._is_cuda, codec._pool = True, MagicMock()
    return codec


@pytest.fixture
def step(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> GpuStep:
    step: Any = make_row_scheduler(tiny, 2).device
    monkeypatch.setattr(step, "_build", lambda _slots: None)
    step._on_gpu, step._pool, step._stream = True, MagicMock(), MagicMock()
    assert isinstance(step, GpuStep)
    return step


@torch.inference_mode()
def test_one_thread_captures_at_a_time(codec: GpuCodec, step: GpuStep, free_at: dict[str, bool]) -> None:
    captured = {"capture_begin": False, "capture_end": False}
    codec._graph(32)
    assert list(free_at) == ["current_blas_handle", *captured], "cuBLAS cannot begin inside a capture"
    assert captured.items() <= free_at.items()
    free_at.clear()
    step.graph(1, 0)
    assert free_at == captured
    assert is_free()


@torch.inference_mode()
def test_no_thread_captures_while_a_gpu_is_waited_for_or_gets_memory_back(
    codec: GpuCodec, step: GpuStep, free_at: dict[str, bool]
) -> None:
    step.reset()
    assert free_at == {"synchronize": False}
    assert codec._halve()
    assert free_at == dict.fromkeys(CALLS, False)
    free_at.clear()
    step.resize(1)
    assert free_at == dict.fromkeys(CALLS, False)
    assert is_free()
