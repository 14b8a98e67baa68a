"""Comparing a product, as `linear` and the benchmark's candidates for it, with its twin in Triton's interpreter."""

from __future__ import annotations

import torch
from torch import Tensor

from cloner.engine.kernels.step.kernel_set import Kernel
from cloner.engine.kernels.step.layout import Scratch
from cloner.engine.kernels.step.linear import RowNorm, linear_twin
from cloner.engine.kernels.step.tiles import Tile

K, N = 64, 64

TILES = {
    "whole": Tile(16, 32, 32),
    "k in four": Tile(16, 16, 16, split=4),
    "k in two": Tile(32, 64, 32, split=2),
}
"""Of products that add to their output."""


def some(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scratch() -> Scratch:
    return Scratch(torch.zeros(8 * 64 * N), torch.zeros(64), torch.zeros(64, dtype=torch.int32))


def compare_residual(product: Kernel, tile: Tile, rows: int) -> None:
    """A product that adds to its output, and the sums of squares that it leaves."""
    x, weight, before = some(32, K, seed=1), some(N, K, seed=2), some(32, N, seed=3)
    found = []
    for each in (product, linear_twin):
        out, squares, space = before.clone(), torch.full((32 * (N // tile.bn),), -1.0), scratch()
        each(x, weight, out, rows, tile, space, residual_squares=squares)
        assert not space.arrived.any(), "counters must be back at zero for the next kernel"
        found.append((out[:rows], squares[: rows * (N // tile.bn)]))
    for ours, twins in zip(*found, strict=True):
        torch.testing.assert_close(ours, twins, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(found[0][0], before[:rows] + x[:rows] @ weight.T, rtol=2e-5, atol=2e-5)


def compare_normed(product: Kernel, parts: int, *, gated: bool) -> None:
    """A product of rows with a norm, of which `parts` partial sums of squares are there."""
    x, weight = some(16, K, seed=1), some(2 * N, K, seed=2)
    squares = x.square().view(16, parts, -1).sum(2).flatten()
    found = []
    for each in (product, linear_twin):
        out = torch.zeros(16, N if gated else 2 * N)
        each(x, weight, out, 9, Tile(16, 32, 32), scratch(), norm=RowNorm(squares, parts, 1e-6), gated=gated)
        found.append(out[:9])
    torch.testing.assert_close(found[0], found[1], rtol=2e-5, atol=2e-5)
    plain = torch.nn.functional.rms_norm(x[:9], (K,), eps=1e-6) @ weight.T
    if gated:
        plain = torch.nn.functional.silu(plain[:, :N]) * plain[:, N:]
    torch.testing.assert_close(found[0], plain, rtol=2e-5, atol=2e-5)
