"""A fleet of two boxes, as two projects on one daemon: the second has only workers, and both write into one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.batches import write_batch
from tests.support.compose import ON_CPU, SOON, TIMEOUT_S, WORKERS, Box


@pytest.fixture(scope="module")
def boxes(make_box: Callable[..., Box]) -> tuple[Box, Box]:
    """The first box, which has Redis and the collector, and the second."""
    common = {"CLONER_ENGINE": "fake", "CLONER_FAKE_SEGMENT_S": "0.2", "FISH_MODEL_MEMORY_GB": "1000"}
    first = make_box(*ON_CPU, SOON, **common, REDIS_ADDRESS="0.0.0.0")
    first.up()
    second = make_box(
        *ON_CPU,
        SOON,
        WORKERS,
        **common,
        CLONER_BOX="second",
        CLONER_OUT_DIR=str(first.out),
        REDIS_HOST=first.host,
        REDIS_PASSWORD=first.password,
    )
    second.up()
    return first, second


def test_a_batch_is_generated_by_the_workers_of_both_boxes(boxes: tuple[Box, Box], tmp_path: Path) -> None:
    first, _ = boxes
    client = first.client()
    assert {worker.name for worker in client.fleet()} == {"cpu.0@box", "cpu.0@second"}
    batch = client.submit(write_batch(tmp_path, [4, 4], outputs="both"))
    result = batch.wait(timeout=TIMEOUT_S)
    assert (result.generated, result.workers) == (8, {"cpu.0@box": 4, "cpu.0@second": 4})
    assert all(path.is_file() for path in batch.paths().values())
    assert first.recorded_segments(batch.id) == list(range(8))


def test_the_work_of_a_box_that_is_gone_is_taken_over(boxes: tuple[Box, Box], tmp_path: Path) -> None:
    first, second = boxes
    batch = first.client().submit(write_batch(tmp_path, [40, 40], outputs="gone"))
    second.compose("kill", "fleet")
    assert not batch.progress().closed
    assert batch.wait(timeout=TIMEOUT_S).generated == 80
    second.up()
    assert {worker.box for worker in first.client().fleet()} == {"box", "second"}
