"""Latents to samples: upstream's `Decoder`, the convolutions that take most of the codec's time, computed in pieces.

Every convolution is causal, so audio can be made piece by piece if each convolution gets the last columns of the piece
before. A piece that fits into the processor's cache is faster, and a long segment needs no more memory than a short
one.

The activation between convolutions, x + sin(ax)^2 / a with an `a` for each channel (Ziyin et al. 2020, "Neural
Networks Fail to Learn Periodic Functions and How to Fix It"), takes most of the remaining time. With u = ax it is
(u + sin(u)^2) / a: its factors go into the weights before and behind it, and two passes over the samples remain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloner.engine.base import NULL_OBSERVER, StopCheck

Contexts: TypeAlias = dict["CausalContext", Tensor]
"""The last columns of the piece before, for each convolution; empty before the first piece."""


class Stopped(Exception):
    """The caller has stopped the chunk."""


class Waveform(nn.Module):
    """The samples of latents. Weights are taken from an upstream `Decoder` whose weight norm is baked in."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        first, *blocks, activation, last, _tanh = decoder.model
        self.first = _Constants(first.conv.weight, first.conv.bias)
        self.first_context = CausalContext(first.padding)
        self.blocks = nn.ModuleList(_Block(block) for block in blocks)
        self.alpha = _Constants(_alpha(activation))
        self.last = _Constants(last.conv.weight / self.alpha.weight, last.conv.bias)
        self.last_context = CausalContext(last.padding)

    def forward(self, latents: Tensor, columns: int, stopped: StopCheck = NULL_OBSERVER.stopped) -> Tensor:
        """``[rows, channels, columns]`` to samples ``[rows, samples]``, so many `columns` at a time.

        Raises `Stopped` between two pieces when it is `stopped`.
        """
        contexts: Contexts = {}
        pieces = []
        for piece in torch.split(latents, columns, dim=-1):
            if stopped():
                raise Stopped
            pieces.append(self._piece(piece, contexts))
        return torch.cat(pieces, dim=-1)[:, 0]

    def _piece(self, latents: Tensor, contexts: Contexts) -> Tensor:
        extended = self.first_context.extend(Tensor.copy_, latents, contexts)
        x = functional.conv1d(extended, self.first.weight, self.first.bias)
        for block in self.blocks:
            x = block(x, contexts)
        extended = self.last_context.extend(_snake, x.mul_(self.alpha.weight), contexts)
        return functional.conv1d(extended, self.last.weight, self.last.bias).tanh_()


class CausalContext(nn.Module):
    """The input of a convolution: a piece behind the last `columns` of the piece before."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def extend(self, write: Callable[[Tensor, Tensor], object], piece: Tensor, contexts: Contexts) -> Tensor:
        """``[rows, channels, columns + samples]``: the context, then what `write` computes from `piece`. Stores the
        context of the next piece in `contexts`."""
        rows, channels, samples = piece.shape
        extended = piece.new_empty(rows, channels, self._columns + samples)
        before = extended[..., : self._columns]
        if self in contexts:
            before.copy_(contexts[self])
        else:
            before.zero_()
        write(extended[..., self._columns :], piece)
        contexts[self] = extended[..., samples:].clone()  # a view would keep the whole piece in memory
        return extended


class _Block(nn.Module):
    """Upstream's `DecoderBlock`: upsampling by its stride, then three residual units."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        activation, up, *units = block.block
        self.stride = up.stride
        self.alpha = _Constants(_alpha(activation))
        self.up = _Constants(up.conv.weight / self.alpha.weight.transpose(0, 1), up.conv.bias)
        self.context = CausalContext(1)  # upstream's kernels are two strides long
        self.units = nn.ModuleList(_Residual(unit) for unit in units)

    def forward(self, x: Tensor, contexts: Contexts) -> Tensor:
        extended = self.context.extend(_snake, x.mul_(self.alpha.weight), contexts)
        # The padding cuts off what the column before had already made, and what the next one will.
        x = functional.conv_transpose1d(extended, self.up.weight, self.up.bias, self.stride, padding=self.stride)
        for unit in self.units:
            x = unit(x, contexts)
        return x


class _Residual(nn.Module):
    """Upstream's `ResidualUnit`: a wide dilated convolution and one over channels only, added to its input."""

    def __init__(self, unit: Any) -> None:
        super().__init__()
        activation, wide, between, narrow = unit.block
        alpha, factors = _alpha(activation), _alpha(between)
        self.dilation = wide.conv.dilation[0]
        self.context = CausalContext(wide.padding)
        self.alpha = _Constants(alpha)
        self.wide = _Constants(wide.conv.weight / alpha * factors.transpose(0, 1), wide.conv.bias * factors.flatten())
        self.narrow = _Constants((narrow.conv.weight / factors)[..., 0], narrow.conv.bias[:, None])

    def forward(self, x: Tensor, contexts: Contexts) -> Tensor:
        extended = self.context.extend(_snake, x * self.alpha.weight, contexts)
        u = functional.conv1d(extended, self.wide.weight, self.wide.bias, dilation=self.dilation)
        narrow = self.narrow.weight.expand(len(x), -1, -1)
        return x.baddbmm_(narrow, _snake(u, u)).add_(self.narrow.bias)


class _Constants(nn.Module):
    """Tensors that are computed once and follow the module to its device and precision."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias)


def _alpha(activation: Any) -> Tensor:
    """``[1, channels, 1]`` of upstream's `Snake1d`. Values near zero, where the activation is x, are replaced by one
    that can divide."""
    alpha: Tensor = activation.alpha.detach()
    return torch.where(alpha.abs() < 1e-6, 1e-6, alpha)


def _snake(out: Tensor, u: Tensor) -> Tensor:
    """u + sin(u)^2, which is the activation times its `a`, written to `out`."""
    wave = u.sin()
    return torch.addcmul(u, wave, wave, out=out)
