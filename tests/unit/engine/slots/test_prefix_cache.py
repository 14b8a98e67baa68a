from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import numpy as np
import pytest

from cloner.engine.base import Voice
from cloner.engine.prompt import PromptBuilder
from cloner.engine.slots.decoder import Decoder
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.scheduler import SlotScheduler
from tests.support.engine_requests import codes_of, greedy, make_request, make_scheduler, make_voice


@pytest.fixture(scope="module")
def scheduler(tiny: Path) -> SlotScheduler:
    return make_scheduler(tiny, 2)


@contextmanager
def fresh_prefixes(scheduler: SlotScheduler, room: int = 10**8) -> Iterator[PrefixCache]:
    """Gives the scheduler an empty prefix cache within the context."""
    kept = scheduler.prefixes
    fresh = PrefixCache(scheduler.decoder, scheduler.prompts, room)
    scheduler.prefixes = scheduler.running.prefixes = fresh
    yield fresh
    scheduler.prefixes = scheduler.running.prefixes = kept


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 3])
def test_a_reference_is_read_once_over_segments_slots_and_chunks(slots: int, tiny: Path) -> None:
    scheduler = make_scheduler(tiny, slots)
    voices = [make_voice(n) for n in range(3)]
    requests = [make_request(voices[n % 3], n, max_new_tokens=1 + n % 2, min_new_tokens=0) for n in range(9)]
    codes_of(scheduler, requests)
    codes_of(scheduler, requests[::-1])
    codes_of(scheduler, [make_request(make_voice(n), n, max_new_tokens=1, min_new_tokens=0) for n in range(3)])
    assert scheduler.prefixes.computed == 3


def test_another_transcript_of_the_same_recording_is_another_reference(scheduler: SlotScheduler) -> None:
    voice = make_voice(0)
    requests = [greedy(make_request(Voice(voice.codes, text), n)) for n, text in enumerate(["One.", "Another."])]
    with fresh_prefixes(scheduler) as prefixes:
        together = codes_of(scheduler, requests)
        assert prefixes.computed == 2
    assert not np.array_equal(together[0], together[1])


@pytest.mark.slow
@pytest.mark.parametrize("book", range(10))
def test_a_voice_that_differs_in_one_codebook_is_a_voice_of_its_own(book: int, scheduler: SlotScheduler) -> None:
    voice = make_voice(0)
    codes = voice.codes.copy()
    codes[book] = np.random.default_rng(1).permutation(codes[book])
    other = Voice(codes, voice.text)
    requests = [greedy(make_request(one, n, max_new_tokens=6)) for n, one in enumerate([voice, other])]
    with fresh_prefixes(scheduler):
        alone = codes_of(scheduler, requests[1:])[1]
    for order in (requests, requests[::-1]):
        with fresh_prefixes(scheduler):
            together = codes_of(scheduler, order)
        assert np.array_equal(together[1], alone)
        assert not np.array_equal(together[0], alone), "the voices should differ"


def prefix_bytes(scheduler: SlotScheduler, voice: Voice) -> int:
    with fresh_prefixes(scheduler) as prefixes:
        codes_of(scheduler, [make_request(voice, max_new_tokens=1, min_new_tokens=0)])
        return prefixes.device_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("room", "kept"), [(0, 0), (1, 1), (2, 2), (5, 3)])
def test_no_reference_is_read_twice_for_a_chunk_and_those_within_capacity_are_kept(
    room: int, kept: int, scheduler: SlotScheduler
) -> None:
    voices = [make_voice(n) for n in range(3)]
    requests = [make_request(voices[n % 3], n, max_new_tokens=1, min_new_tokens=0) for n in range(9)]
    with fresh_prefixes(scheduler, room * prefix_bytes(scheduler, voices[0])) as prefixes:
        codes_of(scheduler, requests)
        assert prefixes.computed == 3
        assert list(prefixes._entries) == [voice.key for voice in voices[3 - kept :]], (
            "the least recently used is evicted first"
        )
        assert not prefixes._tokens
        codes_of(scheduler, requests)
        assert prefixes.computed == 3 + (3 - kept)


@dataclass
class Stored:
    """Stands for a prefix of 10 bytes."""

    device: str
    nbytes = 10

    def cpu(self) -> Stored:
        return Stored("host")

    def to(self, device: str) -> Stored:
        return Stored(device)


def test_entries_beyond_the_capacity_are_in_host_memory_until_the_chunk_ends() -> None:
    decoder = MagicMock(model=SimpleNamespace(device="gpu"))
    decoder.cache.read.side_effect = lambda *_: Stored("gpu")
    prompts = MagicMock()
    prompts.prefix.return_value = [0]
    prefixes = PrefixCache(cast(Decoder, decoder), cast(PromptBuilder, prompts), capacity_bytes=25)
    voices = [make_voice(n) for n in range(4)]

    def devices() -> list[str]:
        return [cast(Any, prefix).device for prefix in prefixes._entries.values()]

    for voice in voices:
        prefixes.copy_to_slot(voice, 0)
    assert devices() == ["gpu", "gpu", "host", "host"]
    prefixes.copy_to_slot(voices[2], 1)
    slot, written = decoder.cache.write.call_args.args
    assert (slot, written.device) == (1, "host")
    assert prefixes.computed == 4
    prefixes.end_chunk()
    assert list(prefixes._entries) == [voices[3].key, voices[2].key]
    assert devices() == ["gpu", "gpu"]
