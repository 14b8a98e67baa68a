from __future__ import annotations

import pytest
import torch

from cloner.engine.kernels.step.layout import Heads
from cloner.engine.memory import GB, MemoryBudget
from cloner.engine.token_rows.page_plan import PagePlan, plan_pages
from cloner.engine.token_rows.paged_cache import page_bytes
from cloner.errors import LoadFailed

S1_MINI_PAGE = page_bytes(28, Heads(16, 8, 128), torch.bfloat16)
CARD_SHARE = 0.95
MODELS = 3.6
"""GB of weights, the codec, its activations, buffers and graphs; of these 2.0 are loaded before the cache is
planned."""


def card(total_gb: float, other_gb: float = 0.0) -> MemoryBudget:
    loaded, work = 2.0, MODELS - 2.0
    free = total_gb - loaded - other_gb
    return MemoryBudget(int(total_gb * CARD_SHARE * GB), int(loaded * GB), int(free * GB), workspace=int(work * GB))


@pytest.mark.parametrize(
    ("total_gb", "wanted", "slots"),
    [
        (79.6, 128, 128),
        (79.6, 256, 256),
        (24, 128, 128),
        (16, 128, 128),
        (16, 96, 96),
        (12, 64, 64),
        (12, 128, 87),
        (8, 64, 44),
    ],
)
def test_slots_of_s1_mini_on_cards_that_people_have(total_gb: float, wanted: int, slots: int) -> None:
    plan = plan_pages(card(total_gb), S1_MINI_PAGE, wanted)
    assert plan.slots == slots
    assert plan.nbytes <= card(total_gb).available


def test_a_card_with_room_gets_no_more_than_its_slots_can_use() -> None:
    plan = plan_pages(card(79.6), S1_MINI_PAGE, 128)
    assert plan.pages == 1 + 128 * (13 + 5) + 16 * 5
    assert str(plan.log_line()) == f"Cache: 128 slots, 2385 pages of 64 positions, {2385 * 7 / 1024:.2f} GB"


def test_a_desktop_beside_it_takes_slots() -> None:
    assert plan_pages(card(12, other_gb=1.5), S1_MINI_PAGE, 128).slots < plan_pages(card(12), S1_MINI_PAGE, 128).slots


def test_without_room_for_one_segment_the_worker_does_not_start() -> None:
    with pytest.raises(LoadFailed, match=r"a cache of 2048 positions needs 1\.8 GB beside the models \(2\.0 GB\)"):
        plan_pages(card(4), S1_MINI_PAGE, 64)


def test_one_slot_at_least() -> None:
    memory = MemoryBudget(10 * GB, 0, 34 * S1_MINI_PAGE, workspace=0)
    assert plan_pages(memory, S1_MINI_PAGE, 64) == PagePlan(2, 34, S1_MINI_PAGE)
