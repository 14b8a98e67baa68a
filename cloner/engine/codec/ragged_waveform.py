"""Latents of several segments to samples at once, without padding: the codec's waveform decoder over ragged rows.

`kernels/codec/rows.py` says how segments lie behind one another. Only kernel launches and allocations happen here, none
of which waits for the GPU, so all of it can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cloner.engine.kernels.codec.kernel_set import CodecPlan
from cloner.engine.kernels.codec.layers import LAST_TAPS, Block, ResidualUnit, Snake, WaveformLayers
from cloner.engine.kernels.codec.tiles import ConvTile, UnitTile


@dataclass(frozen=True)
class _Units:
    """The residual units of a block, the activation `following` the last, and which frames are `valid`."""

    block: Block
    following: Snake
    valid: Tensor

    def __iter__(self) -> Iterator[tuple[ResidualUnit, Snake, bool]]:
        """Each unit, the activation behind it, and whether another unit needs its residual stream."""
        units = self.block.units
        for place, unit in enumerate(units):
            last = place + 1 == len(units)
            yield unit, self.following if last else units[place + 1].before, not last


class RaggedWaveform:
    """An upstream `Decoder` whose weight norm is baked in, computed as `plan` says."""

    def __init__(self, decoder: Any, plan: CodecPlan) -> None:
        self.layers = WaveformLayers.of(decoder, plan.dtype)
        self._tiles = plan.tiles
        self._kernels = plan.kernels
        last = plan.tiles.wide[-1]
        if len(plan.tiles.wide) != len(self.layers.blocks) or not isinstance(last, UnitTile):
            raise ValueError("a tile for each block is needed, and a `UnitTile` for the last")
        self._last_tile = last

    def __call__(self, latents: Tensor, valid: Tensor, *, samples: Tensor, finite: Tensor) -> None:
        """Write the samples of `latents` ``[columns, channels]``, which are zero in gaps.

        `valid` ``[frames]`` is 0 for the frames of gaps. `samples` is ``[columns * hop]`` in fp32, gaps included;
        `finite` has a number for each `SUM_ROWS` of them, 0 where one is NaN or was infinite.
        """
        layers = self.layers
        act = latents.new_empty(len(latents), layers.first.outputs)
        self._kernels.convolve(latents, layers.first, layers.blocks[0].before, valid, self._tiles.first, act=act)
        for number, block in enumerate(layers.blocks[:-1]):
            x, act = self._raise(act, block, valid, self._tiles.up[number])
            units, wide = _Units(block, layers.blocks[number + 1].before, valid), self._tiles.wide[number]
            if isinstance(wide, UnitTile):
                act = self._fused_units(x, act, units, wide)
            else:
                self._units(x, act, units, (wide, self._tiles.narrow[number]))
            del x  # the next block takes its memory
        x, act = self._raise(act, layers.blocks[-1], valid, self._tiles.up[-1])
        part = self._last_units(x, act, _Units(layers.blocks[-1], layers.after, valid))
        self._kernels.sum_taps(part, layers.last_bias, layers.last_taps, samples=samples, finite=finite)

    def _raise(self, act: Tensor, block: Block, valid: Tensor, tile: ConvTile) -> tuple[Tensor, Tensor]:
        """The transposed convolution: x and its activation, `stride` rows for each of `act`."""
        x, raised = (act.new_empty(len(act), block.up.outputs) for _ in range(2))
        snake = block.units[0].before.repeated(block.stride)
        self._kernels.convolve(act, block.up, snake, valid, tile, act=raised, x=x)
        channels = block.units[0].wide.inputs
        return x.view(-1, channels), raised.view(-1, channels)

    def _units(self, x: Tensor, act: Tensor, units: _Units, tiles: tuple[ConvTile, ConvTile]) -> None:
        """Residual units of two launches each; the activation takes the place of `act`."""
        hidden = torch.empty_like(act)
        for unit, snake, keep in units:
            self._kernels.convolve(act, unit.wide, unit.between, units.valid, tiles[0], act=hidden)
            kept = x if keep else None
            self._kernels.convolve(hidden, unit.narrow, snake, units.valid, tiles[1], act=act, x=kept, residual=x)

    def _fused_units(self, x: Tensor, act: Tensor, units: _Units, tile: UnitTile) -> Tensor:
        """Residual units of one launch each, and the activation behind them."""
        other = torch.empty_like(act)
        for unit, snake, keep in units:
            self._kernels.apply_unit(act, x, unit, snake, units.valid, tile, keep=keep, act=other)
            act, other = other, act
        return act

    def _last_units(self, x: Tensor, act: Tensor, units: _Units) -> Tensor:
        """Those of the last block, and the products of the last convolution, ``[rows, 8]``."""
        other = torch.empty_like(act)
        part = torch.empty(len(act), LAST_TAPS, dtype=torch.float32, device=act.device)
        for unit, snake, keep in units:
            into = {"act": other} if keep else {"last_weight": self.layers.last_weight, "part": part}
            self._kernels.apply_unit(act, x, unit, snake, units.valid, self._last_tile, keep=keep, **into)
            act, other = other, act
        return part
