from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, functional

from cloner.engine.slots.packed_linear import PackedLinear
from tests.support.engine_requests import weight_of

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (32, 1, 48), (3, 7, 48), (300, 48)])
def test_it_is_a_linear_layer_for_any_number_of_rows(shape: tuple[int, ...], biased: bool, dtype: torch.dtype) -> None:
    x, weight = random(*shape, dtype=dtype), random(97, 48, dtype=dtype)
    bias = random(97, dtype=dtype) if biased else None
    y = PackedLinear(weight, bias)(x)
    expected = functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    assert (y.float() - expected).abs().max() < expected.abs().max() * torch.finfo(dtype).eps


def test_rows_need_not_be_contiguous() -> None:
    product, x = PackedLinear(random(16, 8)), random(5, 3, 8)
    assert torch.equal(product(x[:, -1]), product(x[:, -1].contiguous()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_gets_the_same_bits_at_any_position(dtype: torch.dtype) -> None:
    product, row = PackedLinear(random(97, 48, dtype=dtype)), random(1, 48, dtype=dtype)
    y = product(row.repeat(33, 1))
    assert torch.equal(y, y[:1].expand_as(y))


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_removed_from_the_layers_they_come_from(dtype: torch.dtype) -> None:
    one, other = Linear(8, 4, bias=False, dtype=dtype), Linear(8, 6, bias=False, dtype=dtype)
    weight = torch.cat([one.weight, other.weight])
    product = PackedLinear.from_linears(one, other)
    assert torch.equal(weight_of(product), weight)
    assert not [*one.parameters(), *other.parameters()]


def test_a_layers_bias_is_used() -> None:
    layer, x = Linear(8, 4), random(3, 8)
    expected = layer(x)
    assert torch.allclose(PackedLinear.from_linears(layer)(x), expected)


def test_a_weight_that_cannot_be_packed_is_used_as_it_is() -> None:
    weight = random(4, 8).half()
    x = random(3, 8).half()
    assert torch.equal(PackedLinear(weight)(x), functional.linear(x, weight))
