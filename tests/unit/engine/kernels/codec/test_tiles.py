from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import triton

from cloner.engine.checkpoint import fish
from cloner.engine.codec.ragged import GpuCodec
from cloner.engine.kernel_trial.codec_cases import CodecCases
from cloner.engine.kernels.codec.kernel_set import TRITON, CodecPlan
from cloner.engine.kernels.codec.tiles import (
    ADA,
    HOPPER,
    PUBLISHED_CHANNELS,
    CodecTiles,
    ConvTile,
    UnitTile,
    codec_tiles,
)
from cloner.engine.kernels.launch import recorded_launches
from tests.unit.engine.kernel_trial.offline import SHARED_BYTES

TARGETS = (80, 86, 89, 90)

MOST_SPILLED = 64
"""Bytes of registers that a kernel may spill to memory."""


def all_tiles(tiles: CodecTiles) -> list[ConvTile | UnitTile]:
    return [tiles.first, *tiles.up, *tiles.wide, *tiles.narrow]


def compiled(target: int, *options: str) -> list[dict[str, Any]]:
    """In a process of its own, and without the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.unit.engine.kernel_trial.offline", str(target), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[5])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_for_a_card_that_is_not_here(target: int) -> None:
    kernels = compiled(target, *([] if os.environ.get("CLONER_ALL_TILES") else ["greatest"]))
    assert {kernel["kernel"] for kernel in kernels} >= {"conv_kernel", "unit_kernel", "depthwise_kernel"}
    for kernel in kernels:
        assert kernel["shared_bytes"] <= SHARED_BYTES[target], kernel
        assert kernel["spilled_bytes"] <= MOST_SPILLED, kernel
        if kernel["kernel"] in ("conv_kernel", "unit_kernel"):
            assert kernel["products"], kernel
            assert kernel["tma_loads" if target >= 90 else "wide_copies"], kernel


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0), (13, 1)])
@pytest.mark.parametrize("shared_kib", [48, 64, 99, 163, 227])
def test_every_card_has_tiles_that_fit(capability: tuple[int, int], shared_kib: int) -> None:
    tiles = codec_tiles(capability, shared_kib * 1024)
    for tile in all_tiles(tiles):
        assert tile.shared_bytes <= shared_kib * 1024
        assert tile.stages >= 2
        assert tile.tma is (capability >= (9, 0))
    for channels, wide in zip(PUBLISHED_CHANNELS[1:], tiles.wide, strict=True):
        assert channels % wide.depth == 0
        if isinstance(wide, UnitTile):
            assert wide.left + wide.right == channels


def test_a_known_card_has_its_own_tiles_unchanged() -> None:
    assert {tile.rows for tile in all_tiles(codec_tiles((9, 0), 227 * 1024))} == {64, 128, 256}
    for capability, shared_kib, table in (((9, 0), 227, HOPPER), ((8, 9), 99, ADA), ((8, 6), 99, ADA)):
        chosen = codec_tiles(capability, shared_kib * 1024)
        for tile, expected in zip(all_tiles(chosen), all_tiles(table), strict=True):
            assert (tile.stages, tile.rows) == (expected.stages, expected.rows)


def test_this_triton_has_an_assembler() -> None:
    assert (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists()


@pytest.mark.parametrize("capability", [(8, 9), (9, 0)])
@torch.inference_mode()
def test_every_form_of_a_kernel_that_the_codec_launches_is_tried_before(
    capability: tuple[int, int], tmp_path: Path
) -> None:
    tiles = codec_tiles(capability, SHARED_BYTES[10 * capability[0] + capability[1]])
    plan = CodecPlan(torch.float16, tiles, TRITON)
    with recorded_launches() as tried:
        for case in CodecCases(torch.device("cpu"), 26, plan).all():
            case.run(TRITON)
    codec = GpuCodec(fish.build_codec(tmp_path), torch.device("meta"), 32, plan)
    with recorded_launches() as launched:
        codec._compute(32)
    assert {launch.variant() for launch in launched} == {launch.variant() for launch in tried}
