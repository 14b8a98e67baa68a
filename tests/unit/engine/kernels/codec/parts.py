"""A small waveform decoder with upstream's attributes, and ragged rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cloner.engine.kernels.codec.layers import Snake
from cloner.engine.kernels.codec.rows import GAP_FRAMES

COLUMNS = 4
"""Latent columns of a frame."""


class Random:
    """Numbers that are never zero or one by chance: a bias or an alpha that is left out shows."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)

    def snake(self, channels: int) -> Snake:
        return Snake.of(self.activation(channels))

    def activation(self, channels: int) -> Any:
        return SimpleNamespace(alpha=self.normal(1, channels, 1).abs() + 0.3)

    def conv(self, inputs: int, outputs: int, taps: int, dilation: int = 1) -> Any:
        weight = self.normal(outputs, inputs, taps) / (inputs * taps) ** 0.5
        conv = SimpleNamespace(weight=weight, bias=self.normal(outputs) / 10, dilation=(dilation,))
        return SimpleNamespace(conv=conv, padding=(taps - 1) * dilation)

    def transposed(self, inputs: int, outputs: int, stride: int) -> Any:
        weight = self.normal(inputs, outputs, 2 * stride) / (2 * inputs) ** 0.5
        return SimpleNamespace(conv=SimpleNamespace(weight=weight, bias=self.normal(outputs) / 10), stride=stride)

    def unit(self, channels: int, dilation: int) -> Any:
        wide, narrow = self.conv(channels, channels, 7, dilation), self.conv(channels, channels, 1)
        return SimpleNamespace(block=[self.activation(channels), wide, self.activation(channels), narrow])

    def block(self, inputs: int, outputs: int, stride: int) -> Any:
        units = [self.unit(outputs, dilation) for dilation in (1, 3, 9)]
        return SimpleNamespace(block=[self.activation(inputs), self.transposed(inputs, outputs, stride), *units])

    def decoder(self, latent: int, channels: Sequence[int], strides: Sequence[int]) -> Any:
        first = self.conv(latent, channels[0], 7)
        blocks = [self.block(*each) for each in zip(channels, channels[1:], strides, strict=False)]
        last = [self.activation(channels[-1]), self.conv(channels[-1], 1, 7), None]
        return SimpleNamespace(model=[first, *blocks, *last])


@dataclass(frozen=True)
class Ragged:
    """Segments of so many frames behind one another."""

    lengths: Sequence[int]

    @property
    def frames(self) -> int:
        return sum(self.lengths) + GAP_FRAMES * (len(self.lengths) - 1)

    @property
    def first(self) -> Tensor:
        """``[frames]``: where each frame's segment begins, and -1 in gaps."""
        first = torch.full((self.frames,), -1, dtype=torch.int32)
        for begin, length in zip(self.begins, self.lengths, strict=True):
            first[begin : begin + length] = begin
        return first

    @property
    def valid(self) -> Tensor:
        return (self.first >= 0).to(torch.int8)

    @property
    def begins(self) -> list[int]:
        return [sum(self.lengths[:place]) + GAP_FRAMES * place for place in range(len(self.lengths))]

    def rows(self, random: Random, channels: int, per_frame: int) -> Tensor:
        """Random activations: zero in gaps."""
        return random.normal(self.frames * per_frame, channels) * self.valid.repeat_interleave(per_frame)[:, None]
