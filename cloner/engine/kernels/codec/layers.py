"""The layers of the codec's waveform decoder as the GPU's kernels read them: weights laid out for matrix products over
rows of channels, activations as two numbers a channel.

Weights come from an upstream `Decoder` whose weight norm is baked in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LAST_TAPS = 8
"""Columns that the products of the last convolution are kept in: one a tap, of which there are seven."""


@dataclass(frozen=True)
class Snake:
    """The activation x + sin(alpha x)^2 / alpha: `alpha` and its `reciprocal`, ``[channels]`` each in fp32."""

    alpha: Tensor
    reciprocal: Tensor

    @classmethod
    def of(cls, activation: Any) -> Snake:
        """Upstream's `Snake1d`. An alpha near zero, where the activation is x, is moved away so that it divides."""
        alpha = activation.alpha.detach().float().flatten()
        alpha = torch.where(alpha.abs() < 1e-6, 1e-6, alpha)
        return cls(alpha, alpha.reciprocal())

    def repeated(self, times: int) -> Snake:
        """For rows of ``times * channels`` columns."""
        return Snake(self.alpha.repeat(times), self.reciprocal.repeat(times))


@dataclass(frozen=True)
class Convolution:
    """A causal convolution: `weight` ``[outputs, taps * inputs]``, the oldest tap first, and `bias` ``[outputs]`` in
    fp32."""

    weight: Tensor
    bias: Tensor
    taps: int
    dilation: int = 1

    @property
    def inputs(self) -> int:
        """Channels of its input."""
        return self.weight.shape[1] // self.taps

    @property
    def outputs(self) -> int:
        """Channels of its output."""
        return self.weight.shape[0]

    @classmethod
    def of(cls, conv: Any, dtype: torch.dtype) -> Convolution:
        """A torch `Conv1d`, whose weight is ``[outputs, inputs, taps]``."""
        outputs, _inputs, taps = conv.weight.shape
        weight = conv.weight.detach().permute(0, 2, 1).reshape(outputs, -1)
        return cls(weight.to(dtype).contiguous(), conv.bias.detach().float().contiguous(), taps, conv.dilation[0])

    @classmethod
    def of_transposed(cls, conv: Any, stride: int, dtype: torch.dtype) -> Convolution:
        """A torch `ConvTranspose1d` whose kernel is two strides long and whose weight is ``[inputs, outputs, taps]``.

        out[t * stride + p] = x[t] W[p] + x[t - 1] W[p + stride], which is a convolution of two taps with
        ``stride * outputs`` columns: its row, cut into `stride` rows, is in order.
        """
        inputs, outputs, _taps = conv.weight.shape
        weight = conv.weight.detach().reshape(inputs, outputs, 2, stride).flip(2)
        weight = weight.permute(3, 1, 2, 0).reshape(stride * outputs, 2 * inputs)
        return cls(weight.to(dtype).contiguous(), conv.bias.detach().float().repeat(stride).contiguous(), 2)


@dataclass(frozen=True)
class ResidualUnit:
    """x + narrow(between(wide(before(x)))): a dilated convolution of seven taps and one of a single tap."""

    before: Snake
    wide: Convolution
    between: Snake
    narrow: Convolution


@dataclass(frozen=True)
class Block:
    """`stride` times the rows, then residual units. `before` is the activation in front of `up`."""

    before: Snake
    up: Convolution
    stride: int
    units: tuple[ResidualUnit, ...]


@dataclass(frozen=True)
class WaveformLayers:
    """All of the waveform decoder: latents to samples."""

    first: Convolution
    blocks: tuple[Block, ...]
    after: Snake
    """The activation behind the last block."""
    last_weight: Tensor
    """Of the last convolution, to one channel: ``[16, channels]``, a row a tap, the oldest first, and zeros."""
    last_bias: Tensor
    """``[1]`` in fp32."""
    last_taps: int

    @classmethod
    def of(cls, decoder: Any, dtype: torch.dtype) -> WaveformLayers:
        """Of an upstream `Decoder`, its weights in `dtype`."""
        first, *blocks, after, last, _tanh = decoder.model
        weight = last.conv.weight.detach()[0].T  # [taps, channels]
        last_weight = torch.zeros(2 * LAST_TAPS, weight.shape[1], dtype=dtype, device=weight.device)
        last_weight[: len(weight)] = weight
        return cls(
            Convolution.of(first.conv, dtype),
            tuple(_block(block, dtype) for block in blocks),
            Snake.of(after),
            last_weight,
            last.conv.bias.detach().float().contiguous(),
            len(weight),
        )

    @property
    def hop(self) -> int:
        """Samples of a latent column."""
        hop = 1
        for block in self.blocks:
            hop *= block.stride
        return hop

    @property
    def channels(self) -> tuple[int, ...]:
        """Behind the first convolution and behind each block."""
        return (self.first.outputs, *(block.units[0].narrow.outputs for block in self.blocks))

    @property
    def lookback(self) -> float:
        """Latent columns before a sample's own that have an influence on it."""
        columns, rows = float(self.first.taps - 1), 1
        for block in self.blocks:
            columns += 1 / rows  # the transposed convolution reads one row back
            rows *= block.stride
            columns += sum((unit.wide.taps - 1) * unit.wide.dilation for unit in block.units) / rows
        return columns + (self.last_taps - 1) / rows


def _block(block: Any, dtype: torch.dtype) -> Block:
    before, up, *units = block.block
    return Block(
        Snake.of(before),
        Convolution.of_transposed(up.conv, up.stride, dtype),
        up.stride,
        tuple(_unit(unit, dtype) for unit in units),
    )


def _unit(unit: Any, dtype: torch.dtype) -> ResidualUnit:
    before, wide, between, narrow = unit.block
    return ResidualUnit(
        Snake.of(before), Convolution.of(wide.conv, dtype), Snake.of(between), Convolution.of(narrow.conv, dtype)
    )
