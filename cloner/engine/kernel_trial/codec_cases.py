"""Each of the codec's kernels at the published size, with a card's tiles, against its plain torch function.

To be run on a card before the kernels are used there, and to time them layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cloner.engine.kernels.codec.kernel_set import TWINS, CodecKernels, CodecPlan
from cloner.engine.kernels.codec.layers import Convolution, ResidualUnit, Snake
from cloner.engine.kernels.codec.residual_unit import SUM_ROWS
from cloner.engine.kernels.codec.rows import GAP_FRAMES
from cloner.engine.kernels.codec.tiles import PUBLISHED_CHANNELS, UnitTile

MOST_ERROR = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}
"""Relative error, of norms, that a kernel may have against its plain function."""

LATENT_CHANNELS = 1024
COLUMNS = 4
"""Latent columns of a frame."""
STRIDES = (8, 8, 4, 2)
WIDEST_DILATION = 9


@dataclass(frozen=True)
class Case:
    """A kernel at one layer."""

    kernel: str
    """Its name in `CodecKernels`."""
    layer: str
    run: Callable[[CodecKernels], list[Tensor]]
    """Compute it with the kernels of a set, into memory that held NaN."""
    products: int = 0
    """Multiplications and additions of its matrix products, gaps included."""

    def error(self, kernels: CodecKernels) -> float:
        """The greatest relative error of its results against plain torch; infinite where one is not a number."""
        pairs = zip(self.run(kernels), self.run(TWINS), strict=True)
        errors = [((got.float() - plain.float()).norm() / plain.float().norm()).item() for got, plain in pairs]
        return max(error if error == error else float("inf") for error in errors)  # noqa: PLR0124 - NaN


class CodecCases:
    """Cases over two segments of random rows, `frames` together with the gap between them."""

    def __init__(self, device: torch.device, frames: int, plan: CodecPlan, *, blank: bool = False) -> None:
        """`blank` cases hold whatever is in memory. To compile their launches that is enough, and it saves 0.6 s of
        random numbers."""
        self._device = device
        self._plan = plan
        self._blank = blank
        self._random = torch.Generator(device).manual_seed(0)
        shorter = frames // 3
        self.first = torch.full((frames,), -1, dtype=torch.int32, device=device)
        self.first[:shorter] = 0
        self.first[shorter + GAP_FRAMES :] = shorter + GAP_FRAMES
        self.valid = (self.first >= 0).to(torch.int8)

    def all(self) -> list[Case]:
        """One of each layer of the waveform, and of each kernel of the quantizer."""
        cases, tiles = [], self._plan.tiles
        per_frame, channels = COLUMNS, PUBLISHED_CHANNELS[0]
        cases.append(self._conv("first", per_frame, (LATENT_CHANNELS, channels, 7), tiles.first))
        for number, (outputs, stride) in enumerate(zip(PUBLISHED_CHANNELS[1:], STRIDES, strict=True)):
            up = (channels, stride * outputs, 2)
            cases.append(self._conv(f"up {outputs}", per_frame, up, tiles.up[number], keep=True))
            per_frame, channels = per_frame * stride, outputs
            wide = tiles.wide[number]
            if isinstance(wide, UnitTile):
                last = number == len(STRIDES) - 1
                cases.append(self._unit(channels, per_frame, wide))
                cases.append(self._unit(channels, per_frame, wide, is_kept=False, last=last))
            else:
                cases.append(self._conv(f"wide {channels}", per_frame, (channels, channels, 7), wide))
                narrow, shape = tiles.narrow[number], (channels, channels, 1)
                cases.append(self._conv(f"narrow {channels}", per_frame, shape, narrow, keep=True, residual=True))
                name = f"narrow {channels} of the last unit"
                cases.append(self._conv(name, per_frame, shape, narrow, residual=True))
        return [*cases, self._sum(per_frame), *self._quantizer()]

    def _conv(self, name: str, per_frame: int, shape: tuple[int, int, int], tile: object, **options: bool) -> Case:
        inputs, outputs, taps = shape
        layer = self._layer(inputs, outputs, taps, WIDEST_DILATION if name.startswith("wide") else 1)
        rows, snake = self._rows(inputs, per_frame), self._snake(outputs)
        before = self._rows(outputs, per_frame) if options.get("residual") else None

        def run(kernels: CodecKernels) -> list[Tensor]:
            act = self._poisoned(len(rows), outputs)
            residual = before.clone() if before is not None else None
            x = None
            if options.get("keep"):
                x = self._poisoned(len(rows), outputs) if residual is None else residual
            kernels.convolve(rows, layer, snake, self.valid, tile, act=act, x=x, residual=residual)
            return [act] if x is None else [act, x]

        return Case("convolve", name, run, 2 * len(rows) * layer.weight.numel())

    def _unit(self, channels: int, per_frame: int, tile: UnitTile, *, is_kept: bool = True, last: bool = False) -> Case:
        """A unit; the last of a block does not keep its `x`, and that of the last block makes products."""
        wide, narrow = self._layer(channels, channels, 7, WIDEST_DILATION), self._layer(channels, channels, 1)
        unit = ResidualUnit(self._snake(channels), wide, self._snake(channels), narrow)
        rows, before = self._rows(channels, per_frame), self._rows(channels, per_frame)
        following, weight = self._snake(channels), self._normal(16, channels) / channels**0.5
        weight[7:] = 0

        def run(kernels: CodecKernels) -> list[Tensor]:
            apply = partial(kernels.apply_unit, rows, x := before.clone(), unit, following, self.valid, tile)
            if last:
                part = torch.full((len(rows), 8), torch.nan, device=self._device)
                apply(keep=False, last_weight=weight, part=part)
                return [part]
            act = self._poisoned(len(rows), channels)
            apply(keep=is_kept, act=act)
            return [act, x] if is_kept else [act]

        name = f"unit {channels}" if is_kept else f"last unit {channels}"
        return Case("apply_unit", name, run, 2 * len(rows) * (wide.weight.numel() + narrow.weight.numel()))

    def _sum(self, per_frame: int) -> Case:
        part = torch.randn(len(self.first) * per_frame, 8, device=self._device, generator=self._random)
        bias = torch.full((1,), 0.1, device=self._device)

        def run(kernels: CodecKernels) -> list[Tensor]:
            samples = torch.full((len(part),), torch.nan, device=self._device)
            finite = torch.zeros(-(-len(part) // SUM_ROWS), dtype=torch.int8, device=self._device)
            kernels.sum_taps(part, bias, 7, samples=samples, finite=finite)
            return [samples, finite]

        return Case("sum_taps", "last", run)

    def _quantizer(self) -> list[Case]:
        heads, half = 16, 32
        angles = torch.randn(4096, half, device=self._device, generator=self._random)
        table = torch.stack([angles.cos(), angles.sin()], dim=-1)
        frames, exact = len(self.first), self._normal(5, LATENT_CHANNELS).float()
        qkv, both = self._normal(frames, 3 * LATENT_CHANNELS), self._normal(frames, 6 * LATENT_CHANNELS)
        taps = self._normal(7, LATENT_CHANNELS).float()

        def rotate(kernels: CodecKernels) -> list[Tensor]:
            turned = qkv.clone()
            kernels.rotate(turned, table, self.first, heads)
            return [turned[self.first >= 0]]

        def depthwise(per_frame: int) -> Case:
            rows = self._normal(frames * per_frame, LATENT_CHANNELS)

            def run(kernels: CodecKernels) -> list[Tensor]:
                bias, scale, shift = exact[0], exact[1], exact[2]
                return [kernels.depthwise_norm(rows, taps, bias, scale, shift, 1e-6, self.first)]

            return Case("depthwise_norm", f"quantizer, {per_frame} columns a frame", run)

        return [
            Case("rotate", "quantizer", rotate),
            Case("gate", "quantizer", lambda kernels: [kernels.gate(both)]),
            depthwise(COLUMNS // 2),
            depthwise(COLUMNS),
        ]

    def _layer(self, inputs: int, outputs: int, taps: int, dilation: int = 1) -> Convolution:
        weight = self._normal(outputs, taps * inputs) / (taps * inputs) ** 0.5
        return Convolution(weight, self._normal(outputs).float() / 10, taps, dilation)

    def _snake(self, channels: int) -> Snake:
        alpha = self._normal(channels).float().abs() + 0.3
        return Snake(alpha, alpha.reciprocal())

    def _rows(self, channels: int, per_frame: int) -> Tensor:
        rows = self._normal(len(self.first) * per_frame, channels)
        rows[self.valid.repeat_interleave(per_frame) == 0] = 0
        return rows

    def _normal(self, *shape: int) -> Tensor:
        if self._blank:
            return torch.empty(*shape, dtype=self._plan.dtype, device=self._device)
        return torch.randn(*shape, device=self._device, generator=self._random).to(self._plan.dtype)

    def _poisoned(self, *shape: int) -> Tensor:
        return torch.full(shape, torch.nan, dtype=self._plan.dtype, device=self._device)
