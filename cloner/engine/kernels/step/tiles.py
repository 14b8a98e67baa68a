"""Tile shapes of the step's kernels, one table per GPU architecture. Nothing is tuned at run time.

The table of sm_90 is the fastest of those that were measured on an H200, by number of rows; those of the other
architectures follow from it by shared memory and are compiled, but not measured. A GPU that the tables do not name
gets sm_90's shapes with as many stages as its shared memory holds (`fitted`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Tile:
    """A program of `linear` makes `bm` rows by `bn` columns, `bk` of k at a time, in one of `split` parts of k;
    `stages` is the depth of Triton's software pipeline."""

    bm: int
    bn: int
    bk: int
    split: int = 1
    warps: int = 4
    stages: int = 4


class Product(StrEnum):
    """Products of the step that have shapes of their own. The heads use those of the qkv products."""

    SLOW_QKV = "slow_qkv"
    SLOW_OUT = "slow_out"
    GATE_UP = "gate_up"
    DOWN = "down"
    FAST_QKV = "fast_qkv"
    FAST_OUT = "fast_out"


BUCKETS = (16, 32, 64, 128, 512)
"""Rows, at most, for which a column of the tables holds; more rows use the last."""

_SM90 = {
    Product.SLOW_QKV: ("16 32 128 1 4 6", "32 32 128 1 4 6", "64 32 128 1 4 6", "64 64 64 1 4 6", "128 64 64 1 4 4"),
    Product.SLOW_OUT: ("16 32 128 4 4 4", "32 32 128 4 4 4", "64 16 128 1 4 6", "64 16 128 1 4 6", "64 32 128 1 4 4"),
    Product.GATE_UP: ("16 32 128 1 4 4", "32 32 128 1 4 4", "64 32 128 1 4 4", "64 64 128 1 4 3", "128 64 64 1 8 4"),
    Product.DOWN: ("16 32 128 4 4 4", "32 32 128 4 4 4", "64 32 128 4 4 4", "64 32 128 2 4 4", "64 64 128 1 4 4"),
    Product.FAST_QKV: ("16 32 128 1 4 6", "32 32 128 1 4 6", "64 32 128 1 4 6", "64 32 128 1 4 6", "64 64 64 1 4 6"),
    Product.FAST_OUT: ("16 32 128 4 4 4", "32 16 128 1 4 6", "64 16 128 1 4 6", "64 16 128 1 4 6", "64 16 128 1 4 6"),
}
_SM80 = {
    Product.SLOW_QKV: ("16 32 128 1 4 6", "32 32 128 1 4 6", "64 32 128 1 4 4", "64 64 64 1 4 6", "128 64 64 1 4 4"),
    Product.SLOW_OUT: ("16 32 128 4 4 4", "32 32 128 4 4 4", "64 16 128 1 4 5", "64 16 128 1 4 5", "64 32 128 1 4 4"),
    Product.GATE_UP: ("16 32 128 1 4 4", "32 32 128 1 4 4", "64 32 128 1 4 3", "64 64 64 1 4 4", "128 64 64 1 8 3"),
    Product.DOWN: ("16 32 128 4 4 4", "32 32 128 4 4 4", "64 32 128 4 4 4", "64 32 128 2 4 4", "64 64 128 1 4 3"),
    Product.FAST_QKV: ("16 32 128 1 4 6", "32 32 128 1 4 6", "64 32 128 1 4 4", "64 32 128 1 4 4", "64 64 64 1 4 6"),
    Product.FAST_OUT: ("16 32 128 4 4 4", "32 16 128 1 4 6", "64 16 128 1 4 5", "64 16 128 1 4 5", "64 16 128 1 4 5"),
}
_SM86 = {
    Product.SLOW_QKV: ("16 32 128 1 4 5", "32 32 128 1 4 4", "64 32 128 1 4 3", "64 64 64 1 4 4", "128 64 64 1 4 3"),
    Product.SLOW_OUT: ("16 32 128 4 4 4", "32 32 128 4 4 4", "64 16 128 1 4 3", "64 16 128 1 4 3", "64 32 128 1 4 3"),
    Product.GATE_UP: ("16 32 128 1 4 3", "32 32 128 1 4 3", "64 32 64 1 4 4", "64 64 64 1 4 3", "128 64 32 1 8 4"),
    Product.DOWN: ("16 32 128 4 4 4", "32 32 128 4 4 4", "64 32 128 4 4 3", "64 32 128 2 4 3", "64 64 64 1 4 4"),
    Product.FAST_QKV: ("16 32 128 1 4 5", "32 32 128 1 4 4", "64 32 128 1 4 3", "64 32 128 1 4 3", "64 64 64 1 4 4"),
    Product.FAST_OUT: ("16 32 128 4 4 4", "32 16 128 1 4 5", "64 16 128 1 4 3", "64 16 128 1 4 3", "64 16 128 1 4 3"),
}
_TABLES = {80: _SM80, 86: _SM86, 89: _SM86, 90: _SM90}

_LEAST_COLUMNS = min(
    int(column.split()[1]) for table in _TABLES.values() for columns in table.values() for column in columns
)

KIB = 1024
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227}
"""Shared memory that one block may have, KiB, of the architectures that the tables name (CUDA C++ Programming Guide,
technical specifications per compute capability). A card that is there is asked instead."""


@dataclass(frozen=True)
class Architecture:
    """A GPU as far as tiles depend on it: `capability` is 10 * major + minor, `shared_bytes` what a block may have."""

    capability: int
    shared_bytes: int

    @classmethod
    def of(cls, device: torch.device) -> Architecture:
        """That of `device`; the twins, which need no tiles, get sm_90's wherever there is no GPU."""
        if device.type != "cuda":
            return cls.named(90)
        properties = torch.cuda.get_device_properties(device)
        shared: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
        return cls(10 * properties.major + properties.minor, shared)

    @classmethod
    def named(cls, capability: int) -> Architecture:
        """One of the tables' own."""
        return cls(capability, SHARED_KIB[capability] * KIB)

    @property
    def attend_stages(self) -> int:
        """Pipeline depth of `attend_decode`. A page number is loaded before the page, so Triton makes 5 stages of two
        buffers (70 KiB) and 3 of one (38 KiB)."""
        return 5 if self.shared_bytes > 128 * KIB else 3


def tile_of(product: Product, rows: int, n: int, k: int, gpu: Architecture) -> Tile:
    """The tile for a product of `rows` with a weight of `n` output columns (of each half, if gated) and inner size
    `k`."""
    bucket = next((place for place, most in enumerate(BUCKETS) if rows <= most), len(BUCKETS) - 1)
    return shrunk(_table(gpu)[product][bucket], n, k)


@lru_cache
def _table(gpu: Architecture) -> dict[Product, tuple[Tile, ...]]:
    texts = _TABLES.get(gpu.capability)
    known = texts is not None and gpu.shared_bytes >= SHARED_KIB[gpu.capability] * KIB
    table = {}
    for product, columns in (texts or _SM90).items():
        tiles = [Tile(*map(int, column.split())) for column in columns]
        gated = product is Product.GATE_UP
        table[product] = tuple(tile if known else fitted(tile, gpu, gated=gated) for tile in tiles)
    return table


def shared_bytes(tile: Tile, gpu: Architecture, *, gated: bool) -> int:
    """Shared memory that Triton takes for `linear` in 16-bit precision: with wgmma (sm_90, 64 rows or more) all stages
    of both inputs, with mma.sync one less."""
    wgmma = gpu.capability // 10 == 9 and tile.bm >= 64
    stage = (tile.bm + tile.bn * (2 if gated else 1)) * tile.bk * 2
    return stage * (tile.stages if wgmma else tile.stages - 1)


def fitted(tile: Tile, gpu: Architecture, *, gated: bool) -> Tile:
    """The tile with as many of its stages as fit into shared memory, and with a shorter `bk` where three do not. But on
    sm_90 it keeps to half of a multiprocessor if three stages fit there, so that two programs run side by side."""
    half = (gpu.shared_bytes + KIB) // 2 - KIB
    for limit in (half, gpu.shared_bytes) if gpu.capability // 10 != 9 else (gpu.shared_bytes,):
        for stages in range(tile.stages, 2, -1):
            candidate = replace(tile, stages=stages)
            if shared_bytes(candidate, gpu, gated=gated) <= limit:
                return candidate
    return fitted(replace(tile, bk=tile.bk // 2), gpu, gated=gated) if tile.bk > 16 else replace(tile, stages=1)


def shrunk(tile: Tile, n: int, k: int) -> Tile:
    """The tile for a model so small that its sizes are no multiples of the tile's."""
    bn, bk, split = min(tile.bn, n & -n), min(tile.bk, k & -k), tile.split
    while k % (bk * split):
        split //= 2
    return replace(tile, bn=bn, bk=bk, split=split)


def most_parts(n: int) -> int:
    """Parts, at most, of a row of `n` columns of which a product makes one a program."""
    return n // min(_LEAST_COLUMNS, n & -n)


def attention_parts(decode: int) -> tuple[int, int]:
    """Programs that share a prefix, and programs that share a row's own pages, by number of decode rows: few rows alone
    do not fill a GPU."""
    if decode <= 8:
        return 5, 8
    if decode <= 16:
        return 5, 4
    return (3, 2) if decode <= 32 else (2, 1)


EARLY_ROWS = 64
"""Rows from which on the fast transformer's kernels start early: 4.4% less time a step of 64 rows on an H200, 2.5% of
128, and up to 13% more of 32 and fewer. Those of the slow transformer gain nothing beside them."""


def starts_early(decode: int, gpu: Architecture) -> bool:
    """Whether the fast transformer's kernels over `decode` rows start while the ones before them end.

    On sm_90 alone, where they were measured: newer GPUs can do it too, but on sm_120 the capture of such a launch is
    known to fail (https://github.com/sgl-project/sglang/pull/18596), which a trial of single kernels does not see.
    """
    return decode >= EARLY_ROWS and gpu.capability // 10 == 9
