from __future__ import annotations

import pytest

from cloner.engine.kernels.step.tiles import (
    _TABLES,
    BUCKETS,
    EARLY_ROWS,
    KIB,
    SHARED_KIB,
    Architecture,
    Product,
    Tile,
    fitted,
    shared_bytes,
    shrunk,
    starts_early,
    tile_of,
)


@pytest.mark.parametrize("capability", sorted(_TABLES))
@pytest.mark.parametrize("product", list(Product))
def test_all_tiles_of_the_tables_fit(capability: int, product: Product) -> None:
    gpu = Architecture.named(capability)
    gated = product is Product.GATE_UP
    for rows in BUCKETS:
        tile = tile_of(product, rows, 1024, 3072, gpu)
        assert shared_bytes(tile, gpu, gated=gated) <= gpu.shared_bytes
        assert tile.stages >= 3, "loads should run ahead of products"
        if capability != 90:
            assert 2 * (shared_bytes(tile, gpu, gated=gated) + KIB) <= gpu.shared_bytes + KIB, "two on a multiprocessor"


def test_rows_take_the_next_bucket_and_more_than_all_the_last() -> None:
    gpu = Architecture.named(90)
    heights = [tile_of(Product.SLOW_QKV, rows, 4096, 1024, gpu).bm for rows in (1, 16, 17, 32, 33, 128, 129, 512, 4000)]
    assert heights == [16, 16, 32, 32, 64, 64, 128, 128, 128]


@pytest.mark.parametrize("kib", [48, 64, 99, 128, 227])
@pytest.mark.parametrize("capability", [75, 90, 100, 120])
def test_an_unknown_gpu_gets_tiles_that_fit_whatever_it_has(capability: int, kib: int) -> None:
    gpu = Architecture(capability, kib * KIB)
    for product in Product:
        for rows in BUCKETS:
            tile = tile_of(product, rows, 1024, 3072, gpu)
            assert shared_bytes(tile, gpu, gated=product is Product.GATE_UP) <= gpu.shared_bytes


@pytest.mark.parametrize(
    ("capability", "early"),
    [(80, False), (86, False), (89, False), (90, True), (100, False), (103, False), (120, False)],
)
def test_kernels_start_early_only_where_they_were_measured(capability: int, early: bool) -> None:
    gpu = Architecture(capability, 99 * KIB)
    assert [starts_early(rows, gpu) for rows in (EARLY_ROWS - 1, EARLY_ROWS, 256)] == [False, early, early]


def test_what_fits_is_left_as_it_is() -> None:
    tile = Tile(16, 32, 128, 4, 4, 4)
    assert fitted(tile, Architecture(90, SHARED_KIB[90] * KIB), gated=False) == tile


@pytest.mark.parametrize(("n", "k"), [(64, 64), (128, 128), (256, 768), (4224, 64)])
def test_tiles_divide_the_sizes_of_small_models(n: int, k: int) -> None:
    for columns in _TABLES[90].values():
        for column in columns:
            tile = shrunk(Tile(*map(int, column.split())), n, k)
            assert n % tile.bn == 0
            assert k % (tile.bk * tile.split) == 0
            assert min(tile.bn, tile.bk) >= 16, "tensor cores take no less"
