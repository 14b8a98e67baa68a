"""`linear` in Triton's interpreter against its twin."""

from __future__ import annotations

import pytest

from cloner.engine.kernels.step.linear import linear

from .products import TILES, compare_normed, compare_residual


@pytest.mark.parametrize("tile", list(TILES))
@pytest.mark.parametrize("rows", [1, 20])
def test_a_residual_product_adds_and_leaves_its_sums_of_squares(tile: str, rows: int) -> None:
    compare_residual(linear, TILES[tile], rows)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("parts", [1, 4])
def test_a_norm_is_one_factor_a_row(gated: bool, parts: int) -> None:
    compare_normed(linear, parts, gated=gated)
