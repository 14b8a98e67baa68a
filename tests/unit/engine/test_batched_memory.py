"""Recordings for which the batched engine's memory is short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cloner.audio import Audio, Codes
from cloner.engine.batched import BatchedEngine
from cloner.engine.codec.padded import CodecEncoder
from cloner.engine.pipeline import Options
from cloner.errors import EngineBroken
from tests.support.engine_requests import CPU, loaded


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[BatchedEngine]:
    with loaded(BatchedEngine(tiny, CPU, torch.float32, Options(4, 2))) as engine:
        yield engine


def scarce_encoder(monkeypatch: pytest.MonkeyPatch, failing: int) -> list[int]:
    """Let the first `failing` calls of the encoder run out of memory; the list gets each call's recordings."""
    calls: list[int] = []
    encode = CodecEncoder.encode

    def scarce(encoder: CodecEncoder, recordings: Sequence[Audio]) -> list[Codes]:
        calls.append(len(recordings))
        if len(calls) <= failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(encoder, recordings)

    monkeypatch.setattr(CodecEncoder, "encode", scarce)
    return calls


def test_recordings_that_are_too_much_together_are_encoded_alone(
    engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    noises = [np.random.default_rng(n).normal(0, 0.1, 4000 + 3000 * n).astype(np.float32) for n in range(3)]
    expected = engine.encode(noises)
    calls = scarce_encoder(monkeypatch, 1)
    assert all(map(np.array_equal, engine.encode(noises), expected))
    assert calls == [3, 1, 1, 1]


def test_memory_that_is_short_for_one_recording_is_not_its_fault(
    engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = scarce_encoder(monkeypatch, 2)
    noise = np.zeros(100, dtype=np.float32)
    with pytest.raises(EngineBroken, match=r"the engine broke: OutOfMemoryError: CUDA out of memory\."):
        engine.encode([noise])
    assert calls == [1, 1]
