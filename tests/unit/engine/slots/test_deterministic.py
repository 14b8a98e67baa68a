"""A segment's codes depend on its request, and with `deterministic` on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.engine.base import SpeechRequest, Voice
from cloner.engine.slots.scheduler import SlotScheduler
from tests.support.engine_requests import LONG_TEXT, codes_of, fixed_request, make_request, make_scheduler, make_voice


@pytest.fixture(scope="module")
def deterministic(tiny: Path) -> SlotScheduler:
    return make_scheduler(tiny, 3, deterministic=True)


def test_a_segment_that_moves_to_another_slot_continues_unchanged(deterministic: SlotScheduler) -> None:
    # The first two are estimated to be longer and are not, so the third moves twice.
    mover = fixed_request(make_voice(2), 2, 30, text="Hm.", temperature=1.0, repetition_penalty=1.5)
    requests = [fixed_request(make_voice(n), n, 6 + 6 * n) for n in range(2)]
    with patch.object(deterministic.decoder, "move", wraps=deterministic.decoder.move) as move:
        beside = codes_of(deterministic, [*requests, mover])[2]
    assert [call.args[:2] for call in move.call_args_list] == [(2, 1), (1, 0)]
    assert np.array_equal(beside, codes_of(deterministic, [mover])[2])


@contextmanager
def last_states(scheduler: SlotScheduler) -> Iterator[list[tuple[int, Tensor]]]:
    """Collects each finished segment's slot, and the keys and values in it: a difference in their last bits would
    sooner or later select another code."""
    states = []
    decoder = scheduler.decoder
    take = decoder.generated_codes

    def taken(slot: int, frames: int) -> Tensor:
        states.append((slot, decoder.cache.read(slot, int(decoder.position[slot]))))
        return take(slot, frames)

    with patch.object(decoder, "generated_codes", taken):
        yield states


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_deterministic_codes_do_not_depend_on_neighbours_order_or_slot(seed: int, deterministic: SlotScheduler) -> None:
    random = np.random.default_rng(seed)
    requests = [
        make_request(
            make_voice(n % 4, frames=10 + 9 * n), n, LONG_TEXT[: 5 + 6 * n], seed=seed + n, max_new_tokens=6 + 2 * n
        )
        for n in range(7)
    ]
    alone = {}
    for request in requests:
        with last_states(deterministic) as states:
            spoken = codes_of(deterministic, [request])
        alone[request.segment] = (spoken[request.segment], states[0][1])
    slots = set()
    for count in (7, 4, 7):
        chosen = [requests[place] for place in random.permutation(7)[:count]]
        with last_states(deterministic) as states:
            spoken = codes_of(deterministic, chosen)
        for segment, (slot, state) in zip(spoken, states, strict=True):
            slots.add(slot)
            codes, state_alone = alone[segment]
            assert np.array_equal(spoken[segment], codes), (segment, count)
            assert torch.equal(state, state_alone), (segment, count)
    assert slots == {0, 1, 2}


def test_the_seed_alone_changes_a_segment(deterministic: SlotScheduler, voice: Voice) -> None:
    codes = [codes_of(deterministic, [make_request(voice, seed=seed)])[0] for seed in (0, 1, 0)]
    assert np.array_equal(codes[0], codes[2])
    assert not np.array_equal(codes[0], codes[1])


def test_a_segment_has_its_own_random_numbers_in_any_order_and_number_of_slots(tiny: Path, voice: Voice) -> None:
    requests = [make_request(voice, n, LONG_TEXT[: 60 - 7 * n], seed=n // 2, max_new_tokens=12 + n) for n in range(6)]

    def noises(slots: int, chosen: list[SpeechRequest]) -> dict[int, Tensor]:
        scheduler = make_scheduler(tiny, slots)
        with patch.object(scheduler.decoder, "start", wraps=scheduler.decoder.start) as start:
            list(scheduler.run(chosen))
        return {len(call.args[2].noise): call.args[2].noise for call in start.call_args_list}

    first, second = noises(1, requests), noises(4, requests[::-1][:5])
    assert first.keys() - second.keys() == {13}
    for steps, noise in second.items():
        assert torch.equal(noise, first[steps])
    assert torch.equal(first[16][:15], first[15]), "the same seed gives the same numbers, however many"
    assert not torch.equal(first[15][:14], first[14])


@pytest.mark.parametrize(("fixed", "together"), [(True, {1}), (False, {1, 3})])
def test_several_texts_are_read_at_once_unless_deterministic(fixed: bool, together: set[int], tiny: Path) -> None:
    # At this size the difference in values is too small, so the calls are counted. A reference is always read alone.
    scheduler = make_scheduler(tiny, 3, deterministic=fixed)
    with patch.object(scheduler.decoder, "prefill", wraps=scheduler.decoder.prefill) as fill:
        codes_of(scheduler, [fixed_request(make_voice(n), n, 1) for n in range(3)])
    assert {len(call.args[0]) for call in fill.call_args_list} == together
