"""A fleet in containers is killed or stopped in the middle of a batch of the fake engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.batches import write_batch
from tests.support.compose import ON_CPU, SOON, TIMEOUT_S, Box, eventually

GRACE_S = 60
SEGMENTS = 46


@pytest.fixture(scope="module")
def box(make_box: Callable[..., Box]) -> Box:
    box = make_box(*ON_CPU, SOON, CLONER_ENGINE="fake", CLONER_FAKE_SEGMENT_S="0.3", STOP_GRACE=f"{GRACE_S}s")
    box.up()
    return box


@pytest.mark.parametrize("services", [["fleet"], ["collector"], ["fleet", "collector", "redis"]], ids=" ".join)
def test_a_batch_that_was_killed_in_its_middle_completes_and_speaks_nothing_twice(
    box: Box, tmp_path: Path, services: list[str]
) -> None:
    batch = box.client().submit(write_batch(tmp_path, outputs="killed-" + "-".join(services)))
    eventually(lambda: batch.progress().generated >= 3)
    box.compose("kill", *services)
    box.up()
    assert batch.wait(timeout=TIMEOUT_S).generated == SEGMENTS
    assert box.recorded_segments(batch.id) == list(range(SEGMENTS))


def test_a_stop_in_the_middle_of_a_batch_ends_in_time_and_strands_nothing(box: Box, tmp_path: Path) -> None:
    batch = box.client().submit(write_batch(tmp_path, outputs="stopped"))
    eventually(lambda: batch.progress().generated >= 3)
    began = time.monotonic()
    box.compose("stop")
    assert time.monotonic() - began < GRACE_S
    # Not killed, by Docker or by the launcher.
    assert [box.inspect(name)["State"]["ExitCode"] for name in ("fleet", "collector", "redis")] == [0, 0, 0]
    assert "Killing" not in box.compose("logs", "fleet", "collector")
    box.up()
    assert batch.wait(timeout=TIMEOUT_S).generated == SEGMENTS
    assert box.recorded_segments(batch.id) == list(range(SEGMENTS))
