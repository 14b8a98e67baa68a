"""The processes through which all of a batch goes take no more memory a segment than was measured."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloner.settings import Settings
from ops.bench_memory import STAGES, measure

pytestmark = pytest.mark.slow

SEGMENTS = 100_000

BYTES_A_SEGMENT = {"submit": 1_450, "open": 880, "close": 1_360}
"""Growth of the address space: a quarter more than was measured."""


def test_a_batch_of_100000_segments_stays_within_its_memory(settings: Settings, tmp_path: Path) -> None:
    limits = {stage: SEGMENTS * size for stage, size in BYTES_A_SEGMENT.items()}
    usages = dict(zip(STAGES, measure(settings, tmp_path, SEGMENTS, limits), strict=True))
    assert all(usages[stage].address_space <= limits[stage] for stage in STAGES)
    (result,) = settings.out_dir.glob(".cloner/*/result.json")
    assert f'"generated":{SEGMENTS}' in result.read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_the_limit_ends_a_stage_that_takes_more(settings: Settings, tmp_path: Path, stage: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measure(settings, tmp_path, 20_000, {stage: 2**20})
