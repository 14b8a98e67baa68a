"""A real worker's allocator refuses memory: the batch goes on with fewer slots."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch

pytestmark = pytest.mark.slow

BATCHED = {"engine": EngineName.BATCHED, "slots": 8}


def test_steps_that_are_too_large_get_smaller_and_every_segment_is_spoken(
    launch: Launch, client: Client, patch_module: ModulePatcher, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.slots.step_runner",
        """
        step = module.StepRunner.step
        def scarce(self, active, max_position):
            if active > 2:
                module.torch.empty(2**50)  # the allocator's own words
            return step(self, active, max_position)
        module.StepRunner.step = scarce
        """,
    )
    fleet = launch("--workers", "1", checkpoint_dir=tiny_checkpoint, **BATCHED)
    fleet.wait_for(Event.MODELS_LOADED)
    result = client.submit(write_batch(tmp_path, [7, 5])).wait(timeout=200)
    assert (result.generated, result.failed) == (12, 0)
    fleet.wait_for(Event.OUT_OF_MEMORY, slots=8, fewer=4)
    fleet.wait_for(Event.OUT_OF_MEMORY, slots=4, fewer=2)
    (worker,) = client.fleet()
    assert (worker.slots, worker.loads) == (2, 1)


def test_a_segment_that_never_fits_fails_and_no_other(
    launch: Launch, client: Client, patch_module: ModulePatcher, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.slots.running",
        """
        start = module.RunningSlots._start
        def scarce(self, admitted, *rest):
            if any("endless" in segment.request.text for _, segment in admitted):
                module.torch.empty(2**50)
            return start(self, admitted, *rest)
        module.RunningSlots._start = scarce
        """,
    )
    fleet = launch("--workers", "1", checkpoint_dir=tiny_checkpoint, **BATCHED)
    fleet.wait_for(Event.MODELS_LOADED)
    result = client.submit(write_batch(tmp_path, [6], texts={3: "An endless text."})).wait(timeout=200)
    assert sorted(result.results) == [0, 1, 2, 4, 5]
    assert result.errors[3].code == "out_of_memory"
    assert "the device's memory ran out" in result.errors[3].message
    assert [worker.loads for worker in client.fleet()] == [1]
