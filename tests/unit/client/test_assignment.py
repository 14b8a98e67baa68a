"""Dealing and cutting, with the tables of the design."""

from __future__ import annotations

import random

import pytest

from cloner.client.assignment import CHUNK_FILLS, Assignment, SpeakerSlice, cut, longest_first, round_robin


def speakers_of(shares: list[Assignment]) -> list[list[int]]:
    return [[part.speaker for part in share] for share in shares]


@pytest.mark.parametrize(
    ("workers", "dealt"),
    [
        (2, [[0, 2, 4], [1, 3, 5]]),
        (3, [[0, 3], [1, 4], [2, 5]]),
        (1, [[0, 1, 2, 3, 4, 5]]),
        (4, [[0, 4], [1, 5], [2], [3]]),
    ],
)
def test_round_robin_deals_six_speakers_as_the_design_does(workers: int, dealt: list[list[int]]) -> None:
    assert speakers_of(round_robin([8, 8, 8, 7, 8, 7], workers)) == dealt


def test_round_robin_counts_the_designs_texts() -> None:
    shares = round_robin([8, 8, 8, 7, 8, 7], 4)
    assert [sum(map(len, share)) for share in shares] == [16, 15, 8, 7]


def test_round_robin_leaves_workers_without_speakers_empty() -> None:
    assert speakers_of(round_robin([1, 1], 4)) == [[0], [1], [], []]


def test_longest_first_gives_each_speaker_to_the_least_loaded_worker() -> None:
    amounts: list[list[int]] = [[10], [60], [50], [40], [30]]
    assert speakers_of(longest_first(amounts, 2)) == [[0, 1, 4], [2, 3]]


def test_longest_first_splits_a_speaker_too_big_for_its_share() -> None:
    shares = longest_first([[10] * 90, [10] * 10], 4)
    assert [sum(map(len, share)) for share in shares] == [25, 25, 25, 25]
    assert spoken(shares) == {0: list(range(90)), 1: list(range(10))}


@pytest.mark.parametrize("seed", range(50))
def test_longest_first_loses_no_segment_and_balances(seed: int) -> None:
    rng = random.Random(seed)
    amounts = [[rng.randint(0, 300) for _ in range(rng.randint(1, 40))] for _ in range(rng.randint(1, 30))]
    workers = rng.randint(1, 8)
    shares = longest_first(amounts, workers)
    assert spoken(shares) == {speaker: list(range(len(texts))) for speaker, texts in enumerate(amounts)}
    loads = [sum(sum(amounts[part.speaker][part.start : part.stop]) for part in share) for share in shares]
    # Least-loaded-first is never further from even than one piece, and a piece is at most a share and a text.
    assert max(loads) <= 2 * sum(loads) / workers + 300


def test_cut_gives_one_slot_one_speaker_a_chunk() -> None:
    share = (SpeakerSlice(0, 0, 8), SpeakerSlice(4, 0, 500))
    assert cut(share, slots=1) == [(SpeakerSlice(0, 0, 8),), (SpeakerSlice(4, 0, 500),)]


def test_cut_fills_chunks_with_whole_speakers() -> None:
    share = tuple(SpeakerSlice(speaker, 0, 10) for speaker in range(5))
    assert cut(share, slots=2) == [share[:2], share[2:4], share[4:]]


def test_cut_splits_a_speaker_bigger_than_a_chunk() -> None:
    assert cut((SpeakerSlice(0, 0, 40),), slots=2) == [
        (SpeakerSlice(0, 0, 16),),
        (SpeakerSlice(0, 16, 32),),
        (SpeakerSlice(0, 32, 40),),
    ]


@pytest.mark.parametrize("seed", range(50))
def test_cut_keeps_order_and_fills_all_but_the_last_chunk(seed: int) -> None:
    rng = random.Random(seed)
    share = tuple(SpeakerSlice(speaker, 0, rng.randint(1, 200)) for speaker in range(rng.randint(1, 40)))
    slots = rng.randint(2, 64)
    chunks = cut(share, slots)
    assert spoken(chunks) == {part.speaker: list(range(part.stop)) for part in share}
    assert all(CHUNK_FILLS * slots <= sum(map(len, chunk)) < 2 * CHUNK_FILLS * slots for chunk in chunks[:-1])


def spoken(shares: list[Assignment]) -> dict[int, list[int]]:
    """Places of the segments of each speaker, sorted; a segment dealt twice stands twice."""
    places: dict[int, list[int]] = {}
    for share in shares:
        for part in share:
            places.setdefault(part.speaker, []).extend(range(part.start, part.stop))
    return {speaker: sorted(places[speaker]) for speaker in sorted(places)}
