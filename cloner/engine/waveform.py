"""Latents to samples: upstream's `Decoder`, the convolutions that take most of the codec's time, computed in pieces.

Every convolution looks back only, so sound can be made piece by piece if each convolution still sees the last columns
of the piece before. A piece that stays in the processor's cache is faster, and a long segment needs no more memory
than a short one.

The activation between convolutions, x + sin(ax)^2 / a with an `a` for each channel (Ziyin et al. 2020, "Neural
Networks Fail to Learn Periodic Functions and How to Fix It"), is most of what is left. With u = ax it is
(u + sin(u)^2) / a: its factors go into the weights before and behind it, and two passes over the samples remain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloner.engine.base import UNWATCHED

Tails: TypeAlias = dict["Room", Tensor]
"""What each convolution has to see again of the piece before; empty before the first piece."""


class Stopped(Exception):
    """Nobody wants the samples any more."""


class Waveform(nn.Module):
    """The samples of latents. Weights are taken from an upstream `Decoder` whose weight norm is baked in."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        first, *blocks, activation, last, _tanh = decoder.model
        self.first = _Fixed(first.conv.weight, first.conv.bias)
        self.first_room = Room(first.padding)
        self.blocks = nn.ModuleList(_Block(block) for block in blocks)
        self.alpha = _Fixed(_alpha(activation))
        self.last = _Fixed(last.conv.weight / self.alpha.weight, last.conv.bias)
        self.last_room = Room(last.padding)

    def forward(self, latents: Tensor, columns: int, stopped: Callable[[], bool] = UNWATCHED.stopped) -> Tensor:
        """``[rows, channels, columns]`` to samples ``[rows, samples]``, so many `columns` at a time.

        Raises `Stopped` between two of them when it is `stopped`.
        """
        tails: Tails = {}
        pieces = []
        for piece in torch.split(latents, columns, dim=-1):
            if stopped():
                raise Stopped
            pieces.append(self._piece(piece, tails))
        return torch.cat(pieces, dim=-1)[:, 0]

    def _piece(self, latents: Tensor, tails: Tails) -> Tensor:
        whole = self.first_room.filled(Tensor.copy_, latents, tails)
        x = functional.conv1d(whole, self.first.weight, self.first.bias)
        for block in self.blocks:
            x = block(x, tails)
        whole = self.last_room.filled(_snake, x.mul_(self.alpha.weight), tails)
        return functional.conv1d(whole, self.last.weight, self.last.bias).tanh_()


class Room(nn.Module):
    """Where a convolution reads: a piece, behind the last `columns` of the piece before."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def filled(self, write: Callable[[Tensor, Tensor], object], piece: Tensor, tails: Tails) -> Tensor:
        """The room with what `write` makes of `piece` in it; `tails` is ready for the next piece."""
        rows, channels, samples = piece.shape
        whole = piece.new_empty(rows, channels, self._columns + samples)
        before = whole[..., : self._columns]
        if self in tails:
            before.copy_(tails[self])
        else:
            before.zero_()
        write(whole[..., self._columns :], piece)
        tails[self] = whole[..., samples:].clone()  # a view would keep all of it
        return whole


class _Block(nn.Module):
    """Upstream's `DecoderBlock`: so many times the samples, then three residual units."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        activation, up, *units = block.block
        self.stride = up.stride
        self.alpha = _Fixed(_alpha(activation))
        self.up = _Fixed(up.conv.weight / self.alpha.weight.transpose(0, 1), up.conv.bias)
        self.room = Room(1)  # upstream's kernels are two strides long
        self.units = nn.ModuleList(_Residual(unit) for unit in units)

    def forward(self, x: Tensor, tails: Tails) -> Tensor:
        whole = self.room.filled(_snake, x.mul_(self.alpha.weight), tails)
        # The padding cuts off what the column before had already made, and what the next one will.
        x = functional.conv_transpose1d(whole, self.up.weight, self.up.bias, self.stride, padding=self.stride)
        for unit in self.units:
            x = unit(x, tails)
        return x


class _Residual(nn.Module):
    """Upstream's `ResidualUnit`: a wide dilated convolution and one over channels only, added to what came in."""

    def __init__(self, unit: Any) -> None:
        super().__init__()
        activation, wide, between, narrow = unit.block
        alpha, factors = _alpha(activation), _alpha(between)
        self.dilation = wide.conv.dilation[0]
        self.room = Room(wide.padding)
        self.alpha = _Fixed(alpha)
        self.wide = _Fixed(wide.conv.weight / alpha * factors.transpose(0, 1), wide.conv.bias * factors.flatten())
        self.narrow = _Fixed((narrow.conv.weight / factors)[..., 0], narrow.conv.bias[:, None])

    def forward(self, x: Tensor, tails: Tails) -> Tensor:
        whole = self.room.filled(_snake, x * self.alpha.weight, tails)
        u = functional.conv1d(whole, self.wide.weight, self.wide.bias, dilation=self.dilation)
        narrow = self.narrow.weight.expand(len(x), -1, -1)
        return x.baddbmm_(narrow, _snake(u, u)).add_(self.narrow.bias)


class _Fixed(nn.Module):
    """Numbers that are computed once and follow the module to its device and precision."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias)


def _alpha(activation: Any) -> Tensor:
    """``[1, channels, 1]`` of upstream's `Snake1d`, away from zero, where the activation is x, so that it divides."""
    alpha: Tensor = activation.alpha.detach()
    return torch.where(alpha.abs() < 1e-6, 1e-6, alpha)


def _snake(out: Tensor, u: Tensor) -> Tensor:
    """u + sin(u)^2, which is the activation times its `a`, in `out`."""
    wave = u.sin()
    return torch.addcmul(u, wave, wave, out=out)
