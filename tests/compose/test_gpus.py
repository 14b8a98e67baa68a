"""Which GPUs a fleet in containers uses. A substitute for NVML reports two."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.compose import ON_CPU, Box


@pytest.mark.parametrize(("named", "pins"), [("1", ["GPU-22222222"]), ("1,0", ["GPU-22222222", "GPU-11111111"])])
def test_env_names_the_gpus_that_workers_are_pinned_to(
    make_box: Callable[..., Box], named: str, pins: list[str]
) -> None:
    box = make_box(*ON_CPU, "tests/compose/cards.yml", CLONER_GPUS=named)
    plan = box.compose("run", "--rm", "--no-deps", "fleet", "launcher", "plan")
    workers = [line for line in plan.splitlines() if "CUDA_VISIBLE_DEVICES=" in line]
    assert [pin in worker for pin, worker in zip(pins, workers, strict=True)] == [True] * len(pins)
