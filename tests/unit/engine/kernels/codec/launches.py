"""Launches of the codec's kernels at the published size, on CPU tensors that hold nothing, to compile them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cloner.engine.codec.ragged_waveform import RaggedWaveform
from cloner.engine.kernels.codec import conv, quantizer, residual_unit
from cloner.engine.kernels.codec.kernel_set import TRITON, CodecPlan
from cloner.engine.kernels.codec.layers import Convolution, ResidualUnit, Snake
from cloner.engine.kernels.codec.tiles import PUBLISHED_CHANNELS, ConvTile, UnitTile, codec_tiles

HALF = torch.float16
STRIDES = (8, 8, 4, 2)
LATENT = 1024
FRAMES = 4


def empty(*shape: int, dtype: torch.dtype = HALF) -> Tensor:
    return torch.empty(*shape, dtype=dtype)


def launch_all(capability: int, shared_bytes: int) -> None:
    """Each layer, with its tile."""
    tiles = codec_tiles(divmod(capability, 10), shared_bytes)
    waveform = RaggedWaveform(_decoder(), CodecPlan(HALF, tiles, TRITON))
    columns = FRAMES * 4
    samples = empty(columns * waveform.layers.hop, dtype=torch.float32)
    finite = empty(-(-len(samples) // residual_unit.SUM_ROWS), dtype=torch.int8)
    waveform(empty(columns, LATENT), empty(FRAMES, dtype=torch.int8), samples=samples, finite=finite)
    _launch_quantizer()


def launch_greatest(capability: int, shared_bytes: int) -> None:
    """Each kernel with the tile that needs the most shared memory, and with all that its epilogue can do."""
    tiles = codec_tiles(divmod(capability, 10), shared_bytes)
    units = [tile for tile in tiles.wide if isinstance(tile, UnitTile)]
    convs = [tile for tile in (tiles.first, *tiles.up, *tiles.narrow, *tiles.wide) if isinstance(tile, ConvTile)]
    valid = empty(FRAMES, dtype=torch.int8)
    greatest = max(convs, key=lambda tile: tile.shared_bytes)
    one = _snake(384)
    layer = Convolution(empty(384, 7 * 384), empty(384, dtype=torch.float32), 7)
    conv.convolve(empty(1024, 384), layer, one, valid, greatest, act=empty(1024, 384))
    unit_tile = max(units, key=lambda tile: tile.shared_bytes)
    channels = unit_tile.left + unit_tile.right
    unit = ResidualUnit(
        _snake(channels),
        Convolution(empty(channels, 7 * channels), empty(channels, dtype=torch.float32), 7),
        _snake(channels),
        Convolution(empty(channels, channels), empty(channels, dtype=torch.float32), 1),
    )
    x, act = empty(1024, channels), empty(1024, channels)
    residual_unit.apply_unit(empty(1024, channels), x, unit, _snake(channels), valid, unit_tile, keep=True, act=act)
    _launch_quantizer()


def _launch_quantizer() -> None:
    first, exact = empty(FRAMES, dtype=torch.int32), empty(LATENT, dtype=torch.float32)
    quantizer.rotate(empty(FRAMES, 3 * LATENT), empty(4096, 32, 2, dtype=torch.float32), first, 16)
    quantizer.gate(empty(FRAMES, 6 * LATENT))
    taps = empty(7, LATENT, dtype=torch.float32)
    quantizer.depthwise_norm(empty(FRAMES * 2, LATENT), taps, exact, exact, exact, 1e-6, first)


def _snake(channels: int) -> Snake:
    return Snake(empty(channels, dtype=torch.float32), empty(channels, dtype=torch.float32))


def _decoder() -> Any:
    """Upstream's attributes, of the published size."""

    def conv1d(inputs: int, outputs: int, taps: int, dilation: int = 1) -> Any:
        inner = SimpleNamespace(weight=empty(outputs, inputs, taps), bias=empty(outputs), dilation=(dilation,))
        return SimpleNamespace(conv=inner)

    def activation(channels: int) -> Any:
        return SimpleNamespace(alpha=empty(1, channels, 1))

    def unit(channels: int, dilation: int) -> Any:
        wide, narrow = conv1d(channels, channels, 7, dilation), conv1d(channels, channels, 1)
        return SimpleNamespace(block=[activation(channels), wide, activation(channels), narrow])

    def block(inputs: int, outputs: int, stride: int) -> Any:
        inner = SimpleNamespace(weight=empty(inputs, outputs, 2 * stride), bias=empty(outputs))
        up = SimpleNamespace(conv=inner, stride=stride)
        return SimpleNamespace(block=[activation(inputs), up, *(unit(outputs, dilation) for dilation in (1, 3, 9))])

    last = PUBLISHED_CHANNELS[-1]
    blocks = [block(*each) for each in zip(PUBLISHED_CHANNELS, PUBLISHED_CHANNELS[1:], STRIDES, strict=False)]
    ends = [activation(last), conv1d(last, 1, 7), None]
    return SimpleNamespace(model=[conv1d(LATENT, PUBLISHED_CHANNELS[0], 7), *blocks, *ends])
