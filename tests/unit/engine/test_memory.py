from __future__ import annotations

import itertools

import pytest
import torch

from cloner.engine.memory import (
    GB,
    CacheSize,
    MemoryBudget,
    free_bytes,
    is_out_of_memory,
    plan_cache,
    used_bytes,
    workspace_bytes,
)
from cloner.errors import LoadFailed

S1_MINI_POSITION = 112 * 1024
WORKSPACE = workspace_bytes(torch.device("cpu"))


def memory(may_use: float, used: float, free: float) -> MemoryBudget:
    return MemoryBudget(int(may_use * GB), int(used * GB), int(free * GB), workspace=WORKSPACE)


@pytest.mark.parametrize(
    ("may_use", "used", "free", "most", "slots"),
    [
        (8.0, 3.6, 20.0, 64, 12),  # 3.4 GB left, 80% of it for slots of 224 MiB
        (8.0, 3.6, 2.0, 64, 3),  # less is free on the card than the worker may use
        (80.0, 3.6, 76.0, 64, 64),  # more than needed
        (80.0, 3.6, 76.0, 1000, 274),
        (8.0, 3.6, 20.0, 5, 5),
        (4.9, 3.6, 20.0, 64, 1),  # just enough for one
    ],
)
def test_slots_follow_from_the_available_memory(
    may_use: float, used: float, free: float, most: int, slots: int
) -> None:
    size = plan_cache(memory(may_use, used, free), S1_MINI_POSITION, 2048, most, exactly=False)
    assert (size.slots, size.positions, size.slot_bytes) == (slots, 2048, 2048 * S1_MINI_POSITION)


def test_no_cache_exceeds_the_available_memory() -> None:
    for may_use, used, free, most in itertools.product((5, 8, 24, 80), (0, 1, 3.6), (3, 4.5, 20, 79), (1, 7, 64, 500)):
        given = memory(may_use, used, free)
        size = plan_cache(given, S1_MINI_POSITION, 2048, most, exactly=False)
        taken = size.slots * size.slot_bytes + size.prefix_bytes
        assert 1 <= size.slots <= most
        assert taken + WORKSPACE <= given.free
        assert taken + WORKSPACE + given.used <= given.limit
        assert size.prefix_bytes >= 0.19 * taken, "a fifth is for references"


def test_exactly_so_many_slots_or_none() -> None:
    assert plan_cache(memory(8, 3.6, 20), S1_MINI_POSITION, 2048, 12, exactly=True).slots == 12
    with pytest.raises(LoadFailed, match=r"^13 slot\(s\) need 4\.6 GB beside the models \(3\.6 GB\)"):
        plan_cache(memory(8, 3.6, 20), S1_MINI_POSITION, 2048, 13, exactly=True)


@pytest.mark.parametrize("sizes", [(4.5, 3.6, 20.0), (8.0, 3.6, 1.1), (2.0, 3.6, 20.0), (8.0, 3.6, 0.0)])
def test_memory_for_less_than_one_slot_is_an_error(sizes: tuple[float, float, float]) -> None:
    with pytest.raises(LoadFailed) as failure:
        plan_cache(memory(*sizes), S1_MINI_POSITION, 2048, 64, exactly=False)
    may_use, used, free = sizes
    assert failure.value.message == (
        f"1 slot(s) need 1.3 GB beside the models ({used} GB); of the {may_use} GB that the worker may use, {free} GB"
        " are free: start fewer workers on the card, raise FISH_MODEL_MEMORY_GB, or lower CLONER_SLOTS"
    )


def test_the_summary_has_the_size_of_the_cache() -> None:
    size = CacheSize(slots=12, positions=2048, prefix_bytes=int(0.7761 * GB), slot_bytes=2048 * S1_MINI_POSITION)
    assert size.log_line() == "Cache: 12 slots of 2048 positions, 2.62 GB, and 0.78 GB for references"


def test_free_memory_of_this_machine_is_a_plausible_number() -> None:
    assert 64 * 1024**2 < free_bytes(torch.device("cpu")) < 2**50


def test_used_bytes_are_those_of_this_process() -> None:
    cpu = torch.device("cpu")
    before = used_bytes(cpu)
    taken = torch.ones(256, 1024, 256)  # 256 MiB, written to
    assert 0.9 * taken.nbytes < used_bytes(cpu) - before < 1.5 * taken.nbytes


def test_errors_of_the_allocators_are_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported"))
    assert is_out_of_memory(RuntimeError("CUDA driver error: out of memory"))
    assert not is_out_of_memory(
        RuntimeError("out of resource: shared memory, Required: 264192, Hardware limit: 232448. Reducing block sizes")
    )
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(OSError(12, "Cannot allocate memory"))
