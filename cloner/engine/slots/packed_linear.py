"""Products with weights, nearly all of a step's arithmetic, in the layout that is fastest on each device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

ROWS = 32
"""Number of rows that a CPU's weights are laid out for; other numbers of rows work as well."""


class PackedLinear:
    """As `functional.linear` with `weight` ``[outputs, inputs]``.

    On a CPU the weight is a copy, laid out once as oneDNN reads it: otherwise each call would lay it out again, and in
    float32 torch would use MKL, which is slower for the few rows of a batch (measured in ops/BENCHMARKS.md).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._packed = _can_pack(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS) if self._packed else weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
            return y
        return functional.linear(x, self._weight, self._bias)

    @classmethod
    def from_linears(cls, *linears: Any) -> PackedLinear:
        """The product of one of upstream's `Linear`s, or of several without bias, their outputs concatenated.

        Their weights are removed, so that a model is not in memory twice while it is converted.
        """
        weights = [linear.weight for linear in linears]
        product = cls(weights[0] if len(weights) == 1 else torch.cat(weights), linears[0].bias)
        for linear in linears:
            linear.weight = None
        return product


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32
