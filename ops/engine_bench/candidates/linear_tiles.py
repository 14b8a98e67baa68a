"""Other tiles of `linear` than the tables', each by a rule from the table's tile.

A kernel that starts early needs room on a multiprocessor beside a program of the kernel before it. Of the fast
transformer's products on sm_90, a program takes 96 to 144 KiB of shared memory, and a multiprocessor has 228 KiB: with
64 rows out and gate_up, and down and qkv, do not fit together, with 128 rows no neighbouring products do. So the later
one starts where a multiprocessor is idle, or when the program before has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cloner.engine.kernels.step.tiles import BUCKETS, KIB, Architecture, Product, Tile, shared_bytes, shrunk, tile_of

TileOf = Callable[[Product, int, int, int, Architecture], Tile]


def two_fit(product: Product, rows: int, n: int, k: int, gpu: Architecture) -> Tile:
    """The table's tile with as many of its stages that two programs share a multiprocessor, and with shorter stages
    where three do not fit. CUDA takes 1 KiB of each block."""
    tile, gated = tile_of(product, rows, n, k, gpu), product is Product.GATE_UP
    limit = (gpu.shared_bytes + KIB) // 2 - KIB
    for bk, most in ((tile.bk, tile.stages), (tile.bk // 2, 2 * tile.stages)):
        for stages in range(most, 2, -1):
            smaller = replace(tile, bk=bk, stages=stages)
            if shared_bytes(smaller, gpu, gated=gated) <= limit:
                return smaller
    return tile


def long_steps(product: Product, rows: int, n: int, k: int, gpu: Architecture) -> Tile:
    """The table's tile with twice as much of k in a step, in half as many stages but at least three, where that fits
    and divides a part of k. Each step has three barriers and a wait of its own."""
    tile = tile_of(product, rows, n, k, gpu)
    longer = replace(tile, bk=2 * tile.bk, stages=max(3, tile.stages // 2))
    fits = shared_bytes(longer, gpu, gated=product is Product.GATE_UP) <= gpu.shared_bytes - KIB
    return longer if fits and k % (longer.split * longer.bk) == 0 else tile


def wide_parts(product: Product, rows: int, n: int, k: int, gpu: Architecture) -> Tile:
    """With 33 to 128 rows, four parts of k and wide tiles for products that add to the residual stream: 128 programs,
    where the table has 64 or 128, that move 20 to 50% fewer bytes between multiprocessors and L2 cache, partial sums
    included (down with 64 rows is in the table like this). Otherwise the table's tile."""
    adds = product in {Product.SLOW_OUT, Product.DOWN, Product.FAST_OUT}
    if adds and BUCKETS[1] < rows <= BUCKETS[3]:
        return shrunk(Tile(64, 32 if rows <= BUCKETS[2] else 64, 128, split=4), n, k)
    return tile_of(product, rows, n, k, gpu)
