"""Attention over pages in Triton's interpreter against its twin, and the twin against plain attention.

At the edges: no prefix, a prefix that fills its last page, a first own position, own pages that are just full, groups
that are not full, several groups of a voice, idle rows; and NaN wherever nothing was written.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cloner.engine.kernels.step.attend_decode import attend_decode, attend_decode_twin
from cloner.engine.kernels.step.attend_fast import attend_fast, attend_fast_twin
from cloner.engine.kernels.step.attend_prompt import attend_prompt, attend_prompt_twin
from cloner.engine.kernels.step.layout import FAST_POSITIONS, IDLE, POSITION, AttentionWeights, LayerCache
from cloner.engine.kernels.step.rotary import project_twin
from tests.unit.engine.kernels.step.attention import (
    ACTIVE,
    CASE,
    PAGE,
    SIZES,
    WIDTH,
    Case,
    attention,
    close,
    scratch,
    some,
)


def plainly(qkv: Tensor, row: int, owner: int, case: Case, weights: AttentionWeights) -> Tensor:
    """One row's attention in double, position by position."""
    voice, own = case.owners[owner]
    prefix = case.prefixes[voice]
    queries, keys, values = project_twin(qkv[row : row + 1], torch.tensor([prefix + own]), weights)
    listed = case.table[owner, 1:].tolist()
    first_own = -(-prefix // PAGE)
    places = [(listed[n // PAGE], n % PAGE) for n in range(prefix)]
    places += [(listed[first_own + n // PAGE], n % PAGE) for n in range(own)]
    seen_keys = torch.stack([*(case.cache.keys[page, :, at] for page, at in places), keys[0]]).double()
    seen_values = torch.stack([*(case.cache.values[page, :, at] for page, at in places), values[0]]).double()
    group = torch.arange(SIZES.heads) // SIZES.group
    scores = (seen_keys[:, group] * queries[0].double()).sum(-1) * SIZES.head_dim**-0.5
    attended: Tensor = (scores.softmax(0)[..., None] * seen_values[:, group]).sum(0)
    return attended.flatten().float()


@pytest.mark.parametrize("normed", [True, False])
def test_the_twin_is_plain_attention(normed: bool) -> None:
    case, weights = Case(*CASE), attention(normed=normed)
    rows, qkv, out = case.decode_rows(ACTIVE), some(8, SIZES.qkv_width, seed=4), torch.full((8, WIDTH), 7.0)
    expected = [plainly(qkv, row, owner, case, weights) for row, owner in enumerate(ACTIVE) if owner != IDLE]
    attend_decode_twin(qkv, out, rows, weights, case.cache, scratch(8, 2), 8, (1, 1), 3)
    close(out[[row for row, owner in enumerate(ACTIVE) if owner != IDLE]], torch.stack(expected))
    assert (out[2] == 7).all(), "an idle row's output is left alone"


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "normed"), [((1, 1), True), ((2, 3), False)])
def test_decode_rows_attend_and_store_as_their_twin_does(parts: tuple[int, int], normed: bool) -> None:
    case, weights = Case(*CASE), attention(normed=normed)
    rows, qkv = case.decode_rows(ACTIVE), some(8, SIZES.qkv_width, seed=4)
    space, found = scratch(8, sum(parts)), []
    for attend in (attend_decode, attend_decode_twin):
        out, cache = torch.zeros(8, WIDTH), case.copy_of_cache()
        attend(qkv, out, rows, weights, cache, space, 8, parts, 3)
        found.append((out, cache.keys[1:], cache.values[1:]))
        assert not space.arrived.any()
    for ours, twins in zip(*found, strict=True):
        close(ours, twins)
    assert found[0][0].isfinite().all()


def test_many_rows_of_one_voice_stand_in_several_groups() -> None:
    case, weights = Case([20], [(0, own) for own in (0, 3, 1, 2, 0, 5, 1, 1, 4)]), attention()
    rows, qkv = case.decode_rows(list(range(9))), some(9, SIZES.qkv_width, seed=5)
    assert (rows.groups[1] != IDLE).sum() == 1
    found = []
    for attend in (attend_decode, attend_decode_twin):
        out = torch.zeros(9, WIDTH)
        attend(qkv, out, rows, weights, case.copy_of_cache(), scratch(9, 2), 9, (1, 1), 3)
        found.append(out)
    close(*found)


@pytest.mark.parametrize("normed", [True, False])
def test_prompt_rows_attend_and_store_as_their_twin_does(normed: bool) -> None:
    case, weights = Case(*CASE), attention(normed=normed)
    # The second piece of an owner follows its first in the same step; a group without rows is idle.
    rows = case.prompt_rows([(0, 8), (0, 3), (4, 1), (1, 0), (6, 8)])
    count = len(rows.records)
    qkv, found = some(count, SIZES.qkv_width, seed=6), []
    for attend in (attend_prompt, attend_prompt_twin):
        out, cache = torch.full((count, WIDTH), 7.0), case.copy_of_cache()
        attend(qkv, out, rows, weights, cache, count)
        found.append((out, cache.keys[1:], cache.values[1:]))
    for ours, twins in zip(*found, strict=True):
        close(ours, twins)
    idle = rows.records[:, POSITION] < 0
    assert (found[0][0][idle] == 7).all()
    assert found[0][0].isfinite().all()


def test_a_prompt_in_pieces_is_read_as_one_that_is_whole() -> None:
    case, weights = Case([21], [(0, 0)]), attention()
    qkv = some(8, SIZES.qkv_width, seed=7)
    whole, pieces, cache = torch.zeros(8, WIDTH), torch.zeros(16, WIDTH), case.copy_of_cache()
    attend_prompt_twin(qkv, whole, case.prompt_rows([(0, 8)]), weights, case.copy_of_cache(), 8)
    spread = torch.zeros(16, SIZES.qkv_width)
    spread[:5], spread[8:11] = qkv[:5], qkv[5:]
    attend_prompt_twin(spread, pieces, case.prompt_rows([(0, 5), (0, 3)]), weights, cache, 16)
    close(torch.cat([pieces[:5], pieces[8:11]]), whole)


@pytest.mark.parametrize("normed", [True, False])
def test_the_fast_transformer_attends_as_its_twin_does(normed: bool) -> None:
    weights, found = attention(normed=normed), []
    for attend in (attend_fast, attend_fast_twin):
        shape = (2, SIZES.kv_heads, FAST_POSITIONS, SIZES.head_dim)
        cache = LayerCache(torch.full(shape, torch.nan), torch.full(shape, torch.nan))
        outputs = []
        for book in (1, 2, 9):
            rows = 4 if book == 1 else 2
            if book == 9:  # between them lie positions that other passes have filled
                for stored in (cache.keys, cache.values):
                    stored[:, :, 3:9] = some(2, SIZES.kv_heads, 6, SIZES.head_dim, seed=8)
            out = torch.zeros(rows, WIDTH)
            attend(some(rows, SIZES.qkv_width, seed=book), out, weights, cache, 2, book, first=book == 1)
            outputs.append(out)
        found.append([*outputs, cache.keys, cache.values])
    for ours, twins in zip(*found, strict=True):
        close(ours, twins)
    assert all(out.isfinite().all() for out in found[0][:3])
