from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cloner.engine.kernels.codec.conv import convolve, convolve_twin
from cloner.engine.kernels.codec.layers import Convolution, ResidualUnit, WaveformLayers
from cloner.engine.kernels.codec.residual_unit import SUM_ROWS, apply_unit, apply_unit_twin, sum_taps, sum_taps_twin
from cloner.engine.kernels.codec.tiles import ConvTile, UnitTile
from tests.unit.engine.kernels.codec.parts import Ragged, Random

RAGGED = Ragged((7, 1, 3))
PER_FRAME = 4
SMALL = ConvTile(rows=32, columns=32, depth=16, group=2)
EXACT = 1e-5


def poisoned(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan)


@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "tma"])
@pytest.mark.parametrize(
    "tile", [SMALL, replace(SMALL, halves=True), replace(SMALL, rows=64, depth=32)], ids=["whole", "halves", "deep"]
)
@pytest.mark.parametrize(("taps", "dilation"), [(7, 1), (7, 9), (2, 1), (1, 1)])
def test_a_convolution_is_that_of_torch(taps: int, dilation: int, tile: ConvTile, tma: bool) -> None:
    random = Random()
    layer = Convolution.of(random.conv(32, 48, taps, dilation).conv, torch.float32)
    rows, snake = RAGGED.rows(random, 32, PER_FRAME), random.snake(48)
    expected, got = poisoned(2, len(rows), 48), poisoned(2, len(rows), 48)
    convolve_twin(rows, layer, snake, RAGGED.valid, tile, act=expected[0], x=expected[1])
    convolve(rows, layer, snake, RAGGED.valid, replace(tile, tma=tma), act=got[0], x=got[1])
    assert (got - expected).abs().max() < EXACT
    assert got[0].abs().max() > 1
    assert (got[0][RAGGED.valid.repeat_interleave(PER_FRAME) == 0] == 0).all()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("halves", [True, False])
def test_a_residual_is_added_and_replaced_in_place(keep: bool, halves: bool) -> None:
    random = Random()
    layer = Convolution.of(random.conv(32, 64, 1).conv, torch.float32)
    rows, snake = RAGGED.rows(random, 32, PER_FRAME), random.snake(64)
    before = random.normal(len(rows), 64)
    acts, streams = poisoned(2, len(rows), 64), [before.clone(), before.clone()]
    for function, act, x in zip((convolve_twin, convolve), acts, streams, strict=True):
        tile = replace(SMALL, halves=halves)
        function(rows, layer, snake, RAGGED.valid, tile, act=act, x=x if keep else None, residual=x)
    assert (acts[0] - acts[1]).abs().max() < EXACT
    assert (streams[0] - streams[1]).abs().max() < EXACT
    assert torch.equal(streams[1], before) is not keep


UNITS = [
    (48, UnitTile(rows=32, left=32, right=16, depth=16)),
    (64, UnitTile(rows=32, left=64, right=0, depth=32)),
    (32, UnitTile(rows=64, left=16, right=16, depth=16, tma=True)),
]


@pytest.mark.parametrize(("channels", "tile"), UNITS, ids=["two blocks", "one block", "tma"])
@pytest.mark.parametrize("keep", [True, False])
def test_a_residual_unit_is_that_of_torch(channels: int, tile: UnitTile, keep: bool) -> None:
    random = Random()
    decoder = random.decoder(16, (2 * channels, channels), (2,))
    unit = _unit(decoder)
    rows, snake = RAGGED.rows(random, channels, PER_FRAME), random.snake(channels)
    before = random.normal(len(rows), channels)
    acts, streams = poisoned(2, len(rows), channels), [before.clone(), before.clone()]
    for function, act, x in zip((apply_unit_twin, apply_unit), acts, streams, strict=True):
        function(rows, x, unit, snake, RAGGED.valid, tile, keep=keep, act=act)
    assert (acts[0] - acts[1]).abs().max() < EXACT
    assert (streams[0] - streams[1]).abs().max() < EXACT
    assert torch.equal(streams[1], before) is not keep
    assert (acts[1][RAGGED.valid.repeat_interleave(PER_FRAME) == 0] == 0).all()


@pytest.mark.parametrize(("channels", "tile"), UNITS, ids=["two blocks", "one block", "tma"])
def test_the_last_unit_makes_the_products_of_the_last_convolution(channels: int, tile: UnitTile) -> None:
    random = Random()
    unit = _unit(random.decoder(16, (2 * channels, channels), (2,)))
    rows, snake = RAGGED.rows(random, channels, PER_FRAME), random.snake(channels)
    before, weight = random.normal(len(rows), channels), torch.zeros(16, channels)
    weight[:7] = random.normal(7, channels)
    parts = poisoned(2, len(rows), 8)
    for function, part in zip((apply_unit_twin, apply_unit), parts, strict=True):
        function(rows, before, unit, snake, RAGGED.valid, tile, keep=False, last_weight=weight, part=part)
    assert (parts[0] - parts[1]).abs().max() < 10 * EXACT
    assert parts[1][:, 6].abs().max() > 1


@pytest.mark.parametrize("length", [SUM_ROWS * 2, SUM_ROWS + 300])
def test_the_sum_of_shifted_columns_is_that_of_torch(length: int) -> None:
    random = Random()
    part, bias = random.normal(length, 8), random.normal(1)
    part[SUM_ROWS - 3, 6] = torch.inf  # which its own sample reads alone
    samples, finite = poisoned(2, length), torch.full((2, 2), 9, dtype=torch.int8)
    for place, function in enumerate((sum_taps_twin, sum_taps)):
        function(part, bias, 7, samples=samples[place], finite=finite[place])
    assert (samples[0] - samples[1]).abs().max() < EXACT
    assert finite.tolist() == [[0, 1], [0, 1]]


def _unit(decoder: object) -> ResidualUnit:
    return WaveformLayers.of(decoder, torch.float32).blocks[0].units[1]
