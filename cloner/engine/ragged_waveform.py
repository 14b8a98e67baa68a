"""Latents of several segments to samples at once, without padding: the codec's waveform decoder over ragged rows.

`kernels/rows.py` says how segments lie behind one another. Only kernel launches and allocations happen here, none of
which waits for the GPU, so all of it can be captured in a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cloner.engine.codec_layers import LAST_TAPS, Block, Snake, WaveformLayers
from cloner.engine.kernels.codec import CodecKernels
from cloner.engine.kernels.codec_tiles import CodecTiles, ConvTile, UnitTile
from cloner.engine.kernels.residual_unit import SUM_ROWS


class RaggedWaveform:
    """An upstream `Decoder` whose weight norm is baked in, its weights in `dtype`."""

    def __init__(self, decoder: Any, dtype: torch.dtype, tiles: CodecTiles, kernels: CodecKernels) -> None:
        if len(tiles.wide) != len(decoder.model) - 4 or not isinstance(tiles.wide[-1], UnitTile):
            raise ValueError("a tile for each block is needed, and a `UnitTile` for the last")
        self.layers = WaveformLayers.of(decoder, dtype)
        self._tiles = tiles
        self._kernels = kernels

    def __call__(self, latents: Tensor, valid: Tensor, *, samples: Tensor, finite: Tensor) -> None:
        """Write the samples of `latents` ``[columns, channels]``, which are zero in gaps.

        `valid` ``[frames]`` is 0 for the frames of gaps. `samples` is ``[columns * hop]`` in fp32, gaps included;
        `finite` has a number for each `SUM_ROWS` of them, 0 where one is NaN or was infinite.
        """
        layers, tiles = self.layers, self._tiles
        act = latents.new_empty(len(latents), layers.first.outputs)
        self._kernels.convolve(latents, layers.first, layers.blocks[0].before, valid, tiles.first, act=act)
        behind = [*(block.before for block in layers.blocks[1:]), layers.after]
        for number, (block, following) in enumerate(zip(layers.blocks, behind, strict=True)):
            x, act = self._raise(act, block, valid, tiles.up[number])
            wide = tiles.wide[number]
            if number + 1 == len(layers.blocks):
                part = self._last_units(x, act, block, valid, wide)
            elif isinstance(wide, UnitTile):
                act = self._fused_units(x, act, block, following, valid, wide)
            else:
                self._units(x, act, block, following, valid, (wide, tiles.narrow[number]))
            del x  # the next block takes its memory
        self._kernels.sum_taps(part, layers.last_bias, layers.last_taps, samples=samples, finite=finite)

    def _raise(self, act: Tensor, block: Block, valid: Tensor, tile: ConvTile) -> tuple[Tensor, Tensor]:
        """The transposed convolution: x and its activation, `stride` rows for each of `act`."""
        x, raised = (act.new_empty(len(act), block.up.outputs) for _ in range(2))
        snake = block.units[0].before.repeated(block.stride)
        self._kernels.convolve(act, block.up, snake, valid, tile, act=raised, x=x)
        channels = block.units[0].wide.inputs
        return x.view(-1, channels), raised.view(-1, channels)

    def _units(
        self, x: Tensor, act: Tensor, block: Block, following: Snake, valid: Tensor, tiles: tuple[ConvTile, ConvTile]
    ) -> None:
        """Residual units of two launches each; the activation takes the place of `act`."""
        hidden = torch.empty_like(act)
        for unit, snake, keep in _with_next(block, following):
            self._kernels.convolve(act, unit.wide, unit.between, valid, tiles[0], act=hidden)
            kept = x if keep else None
            self._kernels.convolve(hidden, unit.narrow, snake, valid, tiles[1], act=act, x=kept, residual=x)

    def _fused_units(
        self, x: Tensor, act: Tensor, block: Block, following: Snake, valid: Tensor, tile: UnitTile
    ) -> Tensor:
        """Residual units of one launch each, and the activation behind them."""
        other = torch.empty_like(act)
        for unit, snake, keep in _with_next(block, following):
            self._kernels.apply_unit(act, x, unit, snake, valid, tile, keep=keep, act=other)
            act, other = other, act
        return act

    def _last_units(self, x: Tensor, act: Tensor, block: Block, valid: Tensor, tile: Any) -> Tensor:
        """Those of the last block, and the products of the last convolution, ``[rows, 8]``."""
        layers = self.layers
        other = torch.empty_like(act)
        part = torch.empty(len(act), LAST_TAPS, dtype=torch.float32, device=act.device)
        for unit, snake, keep in _with_next(block, layers.after):
            into = {"act": other} if keep else {"last_weight": layers.last_weight, "part": part}
            self._kernels.apply_unit(act, x, unit, snake, valid, tile, keep=keep, **into)
            act, other = other, act
        return part


def _with_next(block: Block, following: Snake) -> list[tuple[Any, Snake, bool]]:
    """Each unit of a block, the activation behind it, and whether another unit needs its residual stream."""
    after = [*(unit.before for unit in block.units[1:]), following]
    last = len(block.units) - 1
    return [(unit, snake, place < last) for place, (unit, snake) in enumerate(zip(block.units, after, strict=True))]
