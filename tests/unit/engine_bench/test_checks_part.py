"""What the checks cost, measured on a small scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.engine_bench.checks_part import cost, wall_time
from ops.engine_bench.children import checkpoints
from ops.engine_bench.run_part import FleetBatch


def test_the_processor_time_is_measured() -> None:
    (row,) = cost(2)
    assert len(row.ours) == 2
    assert min(row.ours) > 0


@pytest.mark.slow
def test_batches_with_checks_stand_beside_batches_without() -> None:
    with checkpoints() as made:
        directory: Path = made.get("tiny")
        (row,) = wall_time(directory, FleetBatch(segments=4, frames=12, voices=2), 2, 2, "cpu")
    assert len(row.ours) == len(row.against) == 2
    assert len(row.ratios()) == 2
