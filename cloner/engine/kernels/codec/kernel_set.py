"""The kernels of the codec as a set, so that each can be replaced by its plain torch function."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from cloner.engine.kernels.codec import conv, quantizer, residual_unit
from cloner.engine.kernels.codec.tiles import CodecTiles, untiled


@dataclass(frozen=True)
class CodecKernels:
    """The functions that the codec is computed with. What they compute is said where they are defined."""

    convolve: Callable[..., None]
    apply_unit: Callable[..., None]
    sum_taps: Callable[..., None]
    rotate: Callable[[Tensor, Tensor, Tensor, int], None]
    gate: Callable[[Tensor], Tensor]
    depthwise_norm: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float, Tensor], Tensor]

    def without(self, names: Collection[str]) -> CodecKernels:
        """The same with plain torch in place of the kernels of these names."""
        return CodecKernels(
            **{each.name: getattr(TWINS if each.name in names else self, each.name) for each in fields(self)}
        )


TRITON = CodecKernels(
    conv.convolve,
    residual_unit.apply_unit,
    residual_unit.sum_taps,
    quantizer.rotate,
    quantizer.gate,
    quantizer.depthwise_norm,
)

TWINS = CodecKernels(
    conv.convolve_twin,
    residual_unit.apply_unit_twin,
    residual_unit.sum_taps_twin,
    quantizer.rotate_twin,
    quantizer.gate_twin,
    quantizer.depthwise_norm_twin,
)


@dataclass(frozen=True)
class CodecPlan:
    """How the codec is computed: in which precision, with which tiles and kernels."""

    dtype: torch.dtype
    tiles: CodecTiles
    kernels: CodecKernels

    @classmethod
    def plain(cls, dtype: torch.dtype, blocks: int) -> CodecPlan:
        """Without kernels, for a waveform decoder of so many blocks."""
        return cls(dtype, untiled(blocks), TWINS)
