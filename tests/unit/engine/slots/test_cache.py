from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.engine.slots.cache import KVCache, position_bytes
from cloner.engine.slots.scheduler import SlotScheduler
from cloner.engine.slots.transformer import Stack
from tests.support.engine_requests import CPU, codes_of, make_request, make_scheduler, make_voice

pytestmark = pytest.mark.usefixtures("_inference")


@pytest.fixture
def _inference() -> object:
    with torch.inference_mode():
        yield


def stack(layers: int, kv_heads: int, head_dim: int) -> Stack:
    """A stack that has only sizes."""
    sizes = MagicMock(spec=Stack, kv_heads=kv_heads, head_dim=head_dim)
    sizes.__len__.return_value = layers
    return sizes


def make_cache(positions: int, total: int = 40) -> KVCache:
    cache = KVCache(stack(2, 2, 4), 1, total, torch.float32, CPU)
    cache.partition(positions)
    return cache


def some_prefix(length: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 2, 2, length, 4, generator=torch.Generator().manual_seed(seed))


def test_a_position_of_s1_mini_takes_112_kib() -> None:
    assert position_bytes(stack(28, 8, 128), torch.bfloat16) == 112 * 1024


def test_the_cache_takes_the_computed_bytes() -> None:
    cache = make_cache(10)
    assert cache._memory.nbytes == 40 * position_bytes(stack(2, 2, 4), torch.float32)


@pytest.mark.parametrize(("positions", "slots"), [(10, 4), (20, 2), (40, 1), (15, 2), (41, 0)])
def test_memory_is_divided_into_as_many_slots_as_fit(positions: int, slots: int) -> None:
    assert make_cache(positions).slots == slots


def test_what_is_written_to_a_slot_is_read_from_it_and_from_no_other() -> None:
    cache = make_cache(10)
    prefixes = [some_prefix(3 + slot, slot) for slot in range(4)]
    for slot, prefix in enumerate(prefixes):
        cache.write(slot, prefix)
    for slot, prefix in enumerate(prefixes):
        assert torch.equal(cache.read(slot, 3 + slot), prefix)
        assert not cache.read(slot, 10)[..., 3 + slot :, :].any()
    cache.clear(1)
    assert not cache.read(1, 10).any()
    assert torch.equal(cache.read(0, 3), prefixes[0])
    assert torch.equal(cache.read(2, 5), prefixes[2])


def test_a_copy_that_was_read_does_not_change_with_its_slot() -> None:
    cache = make_cache(10)
    cache.write(0, some_prefix(3))
    kept = cache.read(0, 3)
    cache.clear(0)
    assert torch.equal(kept, some_prefix(3))


def test_a_move_copies_the_filled_positions_and_no_more() -> None:
    cache = make_cache(10)
    cache.write(2, some_prefix(6))
    cache.move(2, 0, 4)
    assert torch.equal(cache.read(0, 4), some_prefix(6)[..., :4, :])
    assert not cache.read(0, 10)[..., 4:, :].any()


@pytest.mark.parametrize("deterministic", [False, True])
def test_former_contents_of_a_slot_have_no_effect(deterministic: bool, tiny: Path) -> None:
    scheduler: SlotScheduler = make_scheduler(tiny, 2, deterministic=deterministic)
    requests = [make_request(make_voice(n), n) for n in range(3)]
    clean = codes_of(scheduler, requests)
    scheduler.decoder.cache._memory.normal_(0, 100)
    again = codes_of(scheduler, requests)
    assert all(np.array_equal(again[n], clean[n]) for n in range(3))
