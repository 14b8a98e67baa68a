from __future__ import annotations

import pytest
import torch

from cloner.engine.kernels.codec.quantizer import (
    depthwise_norm,
    depthwise_norm_twin,
    gate,
    gate_twin,
    rotate,
    rotate_twin,
)
from tests.unit.engine.kernels.codec.parts import Ragged, Random

RAGGED = Ragged((7, 1, 3))
EXACT = 1e-5


@pytest.mark.parametrize("heads", [1, 3])
def test_positions_turn_queries_and_keys_and_leave_values(heads: int) -> None:
    random = Random()
    table = torch.stack([(angles := random.normal(8, 16)).cos(), angles.sin()], dim=-1)
    before = random.normal(RAGGED.frames, 3 * heads * 32)
    turned, expected = before.clone(), before.clone()
    rotate(turned, table, RAGGED.first, heads)
    rotate_twin(expected, table, RAGGED.first, heads)
    assert (turned - expected).abs().max() < EXACT
    assert torch.equal(turned[:, 2 * heads * 32 :], before[:, 2 * heads * 32 :])
    begin = RAGGED.begins[2]
    alone = before[begin:].clone()
    rotate_twin(alone, table, torch.zeros(3, dtype=torch.int32), heads)
    assert torch.equal(alone, expected[begin:]), "positions begin anew in each segment"


@pytest.mark.parametrize("width", [5, 1030])
def test_a_gate_is_that_of_torch(width: int) -> None:
    x = Random().normal(3, 2 * width)
    assert (gate(x) - gate_twin(x)).abs().max() < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("per_frame", [1, 2, 4])
@pytest.mark.parametrize("channels", [48, 64])
def test_a_depthwise_convolution_reads_its_own_segment_alone(channels: int, per_frame: int) -> None:
    random = Random()
    x = random.normal(RAGGED.frames * per_frame, channels)  # not zero in gaps
    weight, bias = random.normal(7, channels), random.normal(channels)
    scale, shift = random.normal(channels), random.normal(channels)
    rest = (weight, bias, scale, shift, 1e-6)
    got, expected = depthwise_norm(x, *rest, RAGGED.first), depthwise_norm_twin(x, *rest, RAGGED.first)
    assert (got - expected).abs().max() < EXACT
    for begin, length in zip(RAGGED.begins, RAGGED.lengths, strict=True):
        own = slice(begin * per_frame, (begin + length) * per_frame)
        alone = depthwise_norm_twin(x[own], *rest, torch.zeros(length, dtype=torch.int32))
        assert (alone - expected[own]).abs().max() < EXACT
