"""The benchmark's candidates for `linear`, each against the twin in Triton's interpreter."""

from __future__ import annotations

import itertools

import pytest
import torch

from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernels.step.tiles import BUCKETS, KIB, Architecture, Product, Tile, shared_bytes, tile_of
from cloner.engine.token_rows.device import GpuStep, StepOptions
from cloner.engine.token_rows.weights import ModelSizes, StepWeights
from ops.engine_bench.candidates.linear_ahead import LinearAhead, following, share
from ops.engine_bench.candidates.linear_tiles import long_steps, two_fit, wide_parts
from ops.engine_bench.candidates.linear_tma import LinearTma
from tests.unit.engine.kernels.step.products import TILES, compare_normed, compare_residual

KERNELS = {"ahead": LinearAhead(), "tma": LinearTma()}


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("tile", list(TILES))
@pytest.mark.parametrize("rows", [1, 20])
def test_a_residual_product_adds_and_leaves_its_sums_of_squares(kernel: str, tile: str, rows: int) -> None:
    compare_residual(KERNELS[kernel], TILES[tile], rows)


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("parts", [1, 4])
def test_a_norm_is_one_factor_a_row(kernel: str, gated: bool, parts: int) -> None:
    compare_normed(KERNELS[kernel], parts, gated=gated)


def test_the_weight_that_follows_is_that_of_the_next_product() -> None:
    sizes = ModelSizes.of_config(CONFIGS[Preset.SMALL])
    weights = StepWeights.empty(sizes, torch.device("meta"), torch.float32)
    step = GpuStep(weights, StepOptions(4, 16, 128, 8), gpu=Architecture.named(90)).built.step
    kernels = step.kernels
    found = following(step)
    assert step.kernels is kernels
    slow, fast = (
        [each for layer in layers for each in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        for layers in (weights.slow, weights.fast)
    )
    order = [*slow, weights.head, *fast, weights.fast_head, fast[0]]
    assert len(found) == len(order) - 1
    for weight, after in itertools.pairwise(order):
        assert found[id(weight)] is after


def test_all_programs_together_fetch_a_weight() -> None:
    weight = torch.empty(6144, 1024, dtype=torch.bfloat16)
    assert share(weight, (64, 1, 1)) * 64 == weight.nbytes
    assert share(weight, (32, 1, 7)) % 16 == 0
    assert share(torch.empty(2), (64, 1, 1)) == 0


def test_two_programs_fit_a_multiprocessor() -> None:
    gpu = Architecture.named(90)
    for product in Product:
        for rows in BUCKETS:
            tile = two_fit(product, rows, 1024, 3072, gpu)
            assert 2 * (shared_bytes(tile, gpu, gated=product is Product.GATE_UP) + KIB) <= gpu.shared_bytes + KIB
            assert tile.stages >= 3


def test_long_steps_fit_and_divide_k() -> None:
    gpu = Architecture.named(90)
    for product in Product:
        for rows in BUCKETS:
            tile = long_steps(product, rows, 1024, 3072, gpu)
            assert shared_bytes(tile, gpu, gated=product is Product.GATE_UP) < gpu.shared_bytes
            assert 3072 % (tile.bk * tile.split) == 0
    assert long_steps(Product.FAST_QKV, 64, 2048, 1024, gpu).bk == 256
    assert long_steps(Product.FAST_QKV, 64, 2048, 128, gpu).bk == 128


@pytest.mark.parametrize(("product", "k"), [(Product.SLOW_OUT, 2048), (Product.DOWN, 3072), (Product.FAST_OUT, 1024)])
@pytest.mark.parametrize("rows", [64, 128])
def test_wide_parts_are_128_programs_that_move_less(product: Product, k: int, rows: int) -> None:
    gpu, n = Architecture.named(90), 1024

    def programs_and_bytes(tile: Tile) -> tuple[int, int]:
        programs = n // tile.bn * rows // tile.bm * tile.split
        partial = 2 * 4 * rows * n * tile.split if tile.split > 1 else 0
        return programs, programs * (tile.bm + tile.bn) * k // tile.split * 2 + partial

    programs, found = programs_and_bytes(wide_parts(product, rows, n, k, gpu))
    before = programs_and_bytes(tile_of(product, rows, n, k, gpu))[1]
    assert programs == 128
    if (product, rows) == (Product.DOWN, 64):
        assert found == before, "the table has it already"
    else:
        assert 0.49 * before < found < 0.81 * before
