"""Candidates for the attention of decode rows in Triton's interpreter against the twin of today's kernel."""

from __future__ import annotations

import pytest
import torch

from cloner.engine.kernels.step.attend_decode import attend_decode, attend_decode_twin
from cloner.engine.kernels.step.layout import IDLE, POSITION
from ops.engine_bench.candidates.attend_groups import attend_groups
from ops.engine_bench.candidates.attend_own_first import attend_own_first
from ops.engine_bench.candidates.attend_planned import attend_planned
from tests.unit.engine.kernels.step.attention import ACTIVE, CASE, SIZES, WIDTH, Case, attention, close, scratch, some

MOST_PARTS = 8
KERNELS = {
    "today's": attend_decode,
    "own first": attend_own_first((2, 1), 3),
    "own first, in parts": attend_own_first((1, 2), 3),
    "groups": attend_groups(1, 3),
    "groups in parts": attend_groups(27, 3),
    "planned": attend_planned(1, 3),
    "planned in parts": attend_planned(27, 3),
}
OTHERS = [name for name in KERNELS if name != "today's"]


@pytest.mark.slow
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("name", OTHERS)
def test_it_attends_and_stores_as_the_twin_does(name: str, normed: bool) -> None:
    case, weights = Case(*CASE), attention(normed=normed)
    rows, qkv = case.decode_rows(ACTIVE), some(8, SIZES.qkv_width, seed=4)
    space, found = scratch(8, MOST_PARTS), []
    for attend in (KERNELS[name], attend_decode_twin):
        out, cache = torch.zeros(8, WIDTH), case.copy_of_cache()
        attend(qkv, out, rows, weights, cache, space, 8, (1, 1), 3)
        found.append((out, cache.keys[1:], cache.values[1:]))
        assert not space.arrived.any()
    for ours, twins in zip(*found, strict=True):
        close(ours, twins)
    assert found[0][0].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_many_rows_of_one_voice_stand_in_several_groups(name: str) -> None:
    case, weights = Case([20], [(0, own) for own in (0, 3, 17, 2, 0, 5, 1, 16, 4)]), attention()
    rows, qkv = case.decode_rows(list(range(9))), some(9, SIZES.qkv_width, seed=5)
    found = []
    for attend in (KERNELS[name], attend_decode_twin):
        out = torch.zeros(9, WIDTH)
        attend(qkv, out, rows, weights, case.copy_of_cache(), scratch(9, MOST_PARTS), 9, (1, 1), 3)
        found.append(out)
    close(*found)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_rows_with_a_voice_of_their_own_each(name: str) -> None:
    """More groups than programs for groups: each takes several."""
    case, weights = Case([3, 0, 16, 5, 1], [(voice, voice + 14) for voice in range(5)]), attention()
    rows, qkv = case.decode_rows([0, 1, 2, 3, 4]), some(5, SIZES.qkv_width, seed=5)
    assert (rows.groups[:, 0] != IDLE).all()
    found = []
    for attend in (KERNELS[name], attend_decode_twin):
        out = torch.zeros(5, WIDTH)
        attend(qkv, out, rows, weights, case.copy_of_cache(), scratch(5, MOST_PARTS), 5, (1, 1), 3)
        found.append(out)
    close(*found)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["all", "values"])
@pytest.mark.parametrize("name", ["today's", "own first", "groups in parts", "planned"])
def test_a_row_that_is_not_finite_stays_so_and_alone(name: str, what: str) -> None:
    """In the step that computes it, and in the next ones, which read its keys and values from the cache."""
    case, weights, attend = Case([21], [(0, 15), (0, 16), (0, 3)]), attention(), KERNELS[name]
    rows, cache = case.decode_rows([0, 1, 2]), case.copy_of_cache()
    alone, apart = case.decode_rows([0, IDLE, 2]), case.copy_of_cache()
    for step in range(3):
        qkv = some(3, SIZES.qkv_width, seed=step)
        expected, out = torch.zeros(3, WIDTH), torch.zeros(3, WIDTH)
        attend_decode_twin(qkv, expected, alone, weights, apart, scratch(3, MOST_PARTS), 3, (1, 1), 3)
        if step == 0:
            qkv[1, 0 if what == "all" else -SIZES.kv_heads * SIZES.head_dim :] = torch.inf
        attend(qkv, out, rows, weights, cache, scratch(3, MOST_PARTS), 3, (1, 1), 3)
        assert not out[1].isfinite().any(), "its status tells of it"
        close(out[[0, 2]], expected[[0, 2]])
        for each in (rows, alone):
            each.records[:, POSITION] += 1
