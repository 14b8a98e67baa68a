"""Tile shapes of the codec's kernels: one table per GPU architecture, chosen by measurement or, where no card was at
hand, by compiling for it. There is no autotuner at run time: its choice could differ from one worker to the next.

A tile is the part of the output that one program of a kernel computes. Triton's shapes are powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

HALF_BYTES = 2
"""Bytes of a number in half precision, which all tables are made for."""

LEAST_STAGES = 2


@dataclass(frozen=True)
class ConvTile:
    """Tile of `conv.convolve`: ``rows x columns`` of the output, summed in steps of `depth` input channels."""

    rows: int = 128
    columns: int = 128
    depth: int = 64
    """Divides the number of input channels: a step lies within one tap."""
    stages: int = 4
    """Steps whose inputs are kept in shared memory, to load ahead."""
    warps: int = 8
    halves: bool = False
    """The epilogue takes one half of the columns after the other, which needs fewer registers."""
    group: int = 8
    """Row tiles that run beside each other over all column tiles, so that they share their inputs in the L2 cache."""
    tma: bool = False
    """Tiles are loaded and stored by the tensor memory accelerator (compute capability 9.0 and later)."""

    @property
    def shared_bytes(self) -> int:
        """Shared memory for the inputs of all stages, an upper bound."""
        return self.stages * (self.rows + self.columns) * self.depth * HALF_BYTES


@dataclass(frozen=True)
class UnitTile:
    """Tile of `residual_unit.apply_unit`: `rows` by all channels, which are two column blocks, `left` + `right`.

    96 channels are 64 + 32 and 192 are 128 + 64: padding them to one power of two would waste a quarter of the
    products. `right` may be 0.
    """

    rows: int = 128
    left: int = 128
    right: int = 64
    depth: int = 64
    stages: int = 3
    warps: int = 4
    tma: bool = False

    @property
    def shared_bytes(self) -> int:
        """Shared memory for the inputs of all stages, an upper bound."""
        return self.stages * (self.rows + self.left + self.right) * self.depth * HALF_BYTES


Tile = TypeVar("Tile", ConvTile, UnitTile)


@dataclass(frozen=True)
class CodecTiles:
    """The tiles of all layers of the waveform decoder."""

    first: ConvTile
    up: tuple[ConvTile, ...]
    """Of each block's transposed convolution."""
    wide: tuple[ConvTile | UnitTile, ...]
    """Of each block's residual units: a `UnitTile` for the whole unit in one kernel (always so in the last block), or
    a `ConvTile` for the convolution of seven taps."""
    narrow: tuple[ConvTile, ...]
    """Of the convolutions of one tap, where they are not part of a `UnitTile`'s kernel."""

    @property
    def shared_bytes(self) -> int:
        """Shared memory that the greatest of them needs."""
        return max(tile.shared_bytes for tile in (self.first, *self.up, *self.wide, *self.narrow))

    def on_card(self, shared_bytes: int, *, tma: bool) -> CodecTiles:
        """The same with as many stages as fit into so much shared memory, two at least."""

        def conv(tile: ConvTile) -> ConvTile:
            return _fitted(replace(tile, tma=tma), shared_bytes)

        def unit(tile: UnitTile) -> UnitTile:
            return _fitted(replace(tile, tma=tma), shared_bytes)

        return CodecTiles(
            first=conv(self.first),
            up=tuple(conv(tile) for tile in self.up),
            wide=tuple(unit(tile) if isinstance(tile, UnitTile) else conv(tile) for tile in self.wide),
            narrow=tuple(conv(tile) for tile in self.narrow),
        )


PUBLISHED_CHANNELS = (1536, 768, 384, 192, 96)
"""Channels of the published codec's waveform decoder behind its first convolution and each block: the tables below
are for these."""

_PAIR = ConvTile(stages=3, warps=4)
"""Two of these programs fit one multiprocessor, so that the epilogue of one runs beside the products of the other."""

HOPPER = CodecTiles(
    first=ConvTile(),
    up=(_PAIR, _PAIR, _PAIR, ConvTile(columns=64, stages=3, warps=4)),
    wide=(
        ConvTile(columns=256, stages=3, halves=True),
        ConvTile(rows=256),
        UnitTile(rows=64),
        UnitTile(rows=128, left=64, right=32, depth=32),
    ),
    narrow=(_PAIR, _PAIR, _PAIR, _PAIR),
)
"""sm_90, measured on an H200."""

_ADA_HALVES = ConvTile(depth=32, warps=4, halves=True)

ADA = CodecTiles(
    first=ConvTile(depth=32),
    up=(_ADA_HALVES, _ADA_HALVES, _ADA_HALVES, ConvTile(columns=64, stages=3, warps=4)),
    wide=(
        ConvTile(depth=32),
        ConvTile(depth=32),
        UnitTile(rows=64, depth=32, stages=4),
        UnitTile(rows=128, left=64, right=32, depth=32, stages=4),
    ),
    narrow=(_ADA_HALVES, _ADA_HALVES, _ADA_HALVES, _ADA_HALVES),
)
"""sm_86, sm_89 and sm_120, whose blocks have 99 KiB of shared memory: 48 KiB, two programs a multiprocessor. Compiled,
not measured. Also for cards that are not known: it needs the least."""

_A100_WHOLE = ConvTile(depth=32, stages=5, warps=4)
_A100_HALVES = replace(_A100_WHOLE, halves=True)

A100 = CodecTiles(
    first=_A100_WHOLE,
    up=(_A100_HALVES, _A100_HALVES, _A100_HALVES, ConvTile(columns=64, warps=4)),
    wide=(
        _A100_WHOLE,
        _A100_WHOLE,
        UnitTile(rows=64),
        UnitTile(rows=128, left=64, right=32, depth=32, stages=4),
    ),
    narrow=(_A100_HALVES, _A100_HALVES, _A100_HALVES, _A100_HALVES),
)
"""sm_80. Compiled, not measured."""

_TABLES = {(8, 0): A100, (8, 7): A100, (9, 0): HOPPER}


def codec_tiles(capability: tuple[int, int], shared_bytes: int) -> CodecTiles:
    """The table of a card of this compute `capability`, whose blocks may have `shared_bytes` of shared memory
    (``shared_memory_per_block_optin``). Where that is not enough for it, it is `ADA`, with fewer stages if need be."""
    tma = capability >= (9, 0)
    chosen = _TABLES.get(capability, ADA).on_card(shared_bytes, tma=tma)
    return chosen if chosen.shared_bytes <= shared_bytes else ADA.on_card(shared_bytes, tma=tma)


def untiled(blocks: int) -> CodecTiles:
    """For the plain torch functions, which have no tiles: whole residual units in all `blocks`."""
    return CodecTiles(ConvTile(), (ConvTile(),) * blocks, (UnitTile(),) * blocks, (ConvTile(),) * blocks)


def _fitted(tile: Tile, shared_bytes: int) -> Tile:
    """The tile with as many stages as fit."""
    while tile.shared_bytes > shared_bytes and tile.stages > LEAST_STAGES:
        tile = replace(tile, stages=tile.stages - 1)
    return tile
