"""Assigning speakers to workers and splitting assignments into chunks."""

from __future__ import annotations

import random

import pytest

from cloner.client.assignment import (
    SEGMENTS_PER_SLOT,
    Assignment,
    SpeakerSlice,
    longest_first,
    round_robin,
    split_by_size,
    split_for_any_worker,
    split_into_chunks,
)


def speakers_of(assignments: list[Assignment]) -> list[list[int]]:
    return [[piece.speaker for piece in assignment] for assignment in assignments]


def segments_of(assignments: list[Assignment]) -> dict[int, list[int]]:
    """Places of the segments of each speaker, sorted; a segment that is assigned twice is there twice."""
    places: dict[int, list[int]] = {}
    for assignment in assignments:
        for piece in assignment:
            places.setdefault(piece.speaker, []).extend(range(piece.start, piece.stop))
    return {speaker: sorted(places[speaker]) for speaker in sorted(places)}


@pytest.mark.parametrize(
    ("workers", "assigned"),
    [
        (2, [[0, 2, 4], [1, 3, 5]]),
        (3, [[0, 3], [1, 4], [2, 5]]),
        (1, [[0, 1, 2, 3, 4, 5]]),
        (4, [[0, 4], [1, 5], [2], [3]]),
    ],
)
def test_round_robin_assigns_speakers_in_turn(workers: int, assigned: list[list[int]]) -> None:
    assert speakers_of(round_robin([8, 8, 8, 7, 8, 7], workers)) == assigned


def test_round_robin_keeps_all_texts_of_a_speaker_together() -> None:
    assignments = round_robin([8, 8, 8, 7, 8, 7], 4)
    assert [sum(map(len, assignment)) for assignment in assignments] == [16, 15, 8, 7]


def test_round_robin_leaves_workers_without_speakers_empty() -> None:
    assert speakers_of(round_robin([1, 1], 4)) == [[0], [1], [], []]


def test_longest_first_gives_each_speaker_to_the_least_loaded_worker() -> None:
    amounts: list[list[int]] = [[10], [60], [50], [40], [30]]
    assert speakers_of(longest_first(amounts, 2)) == [[0, 1, 4], [2, 3]]


def test_longest_first_splits_a_speaker_with_more_than_an_even_part() -> None:
    assignments = longest_first([[10] * 90, [10] * 10], 4)
    assert [sum(map(len, assignment)) for assignment in assignments] == [25, 25, 25, 25]
    assert segments_of(assignments) == {0: list(range(90)), 1: list(range(10))}


@pytest.mark.parametrize("seed", range(50))
def test_longest_first_loses_no_segment_and_balances(seed: int) -> None:
    rng = random.Random(seed)
    amounts = [[rng.randint(0, 300) for _ in range(rng.randint(1, 40))] for _ in range(rng.randint(1, 30))]
    workers = rng.randint(1, 8)
    assignments = longest_first(amounts, workers)
    assert segments_of(assignments) == {speaker: list(range(len(texts))) for speaker, texts in enumerate(amounts)}
    loads = [sum(sum(amounts[piece.speaker][piece.start : piece.stop]) for piece in a) for a in assignments]
    # Least-loaded-first is at most one slice from even, and a slice is at most an even part and one text.
    assert max(loads) <= 2 * sum(loads) / workers + 300


def test_one_slot_gets_one_speaker_a_chunk() -> None:
    assignment = (SpeakerSlice(0, 0, 8), SpeakerSlice(4, 0, 500))
    assert split_into_chunks(assignment, slots=1) == [(SpeakerSlice(0, 0, 8),), (SpeakerSlice(4, 0, 500),)]


def test_chunks_are_filled_with_whole_speakers() -> None:
    assignment = tuple(SpeakerSlice(speaker, 0, 40) for speaker in range(5))
    assert split_into_chunks(assignment, slots=2) == [assignment[:2], assignment[2:4], assignment[4:]]


def test_a_speaker_bigger_than_a_chunk_is_split() -> None:
    assert split_into_chunks((SpeakerSlice(0, 0, 160),), slots=2) == [
        (SpeakerSlice(0, 0, 64),),
        (SpeakerSlice(0, 64, 128),),
        (SpeakerSlice(0, 128, 160),),
    ]


@pytest.mark.parametrize("seed", range(50))
def test_chunks_keep_the_order_and_all_but_the_last_are_full(seed: int) -> None:
    rng = random.Random(seed)
    assignment = tuple(SpeakerSlice(speaker, 0, rng.randint(1, 200)) for speaker in range(rng.randint(1, 40)))
    slots = rng.randint(2, 64)
    chunks = split_into_chunks(assignment, slots)
    assert segments_of(chunks) == {piece.speaker: list(range(piece.stop)) for piece in assignment}
    full = SEGMENTS_PER_SLOT * slots
    assert all(full <= sum(map(len, chunk)) < 2 * full for chunk in chunks[:-1])


@pytest.mark.parametrize("seed", range(50))
def test_chunks_for_any_worker_keep_the_order_and_leave_none_without(seed: int) -> None:
    rng = random.Random(seed)
    assignment = tuple(SpeakerSlice(speaker, 0, rng.randint(1, 200)) for speaker in range(rng.randint(1, 40)))
    slots, workers = rng.randint(1, 64), rng.randint(1, 16)
    chunks = split_for_any_worker(assignment, slots, workers)
    assert segments_of(chunks) == {piece.speaker: list(range(piece.stop)) for piece in assignment}
    sizes, even = [sum(map(len, chunk)) for chunk in chunks], -(-sum(map(len, assignment)) // workers)
    assert max(sizes) <= min(SEGMENTS_PER_SLOT * slots, even)
    assert len(chunks) >= min(workers, sum(sizes) // even)


@pytest.mark.parametrize(
    ("segments", "sizes"),
    [
        (8_000, [2_000] * 4),  # 7.8 a slot
        (12_000, [2_000] * 4 + [1_000] * 4),
        (40_000, [6_667] * 4 + [2_222] * 4 + [1_111] * 4),
        (200_000, [8_192] * 20 + [6_027] * 4 + [2_009] * 4 + [1_005] * 4),
    ],
)
def test_a_speaker_on_the_shared_queue_is_split_in_rounds_that_get_smaller(segments: int, sizes: list[int]) -> None:
    chunks = split_for_any_worker((SpeakerSlice(0, 0, segments),), 256, 4)
    assert [sum(map(len, chunk)) for chunk in chunks] == pytest.approx(sizes, abs=4)


def test_speakers_on_the_shared_queue_that_fit_into_a_chunk_are_whole() -> None:
    assignment = tuple(SpeakerSlice(speaker, 0, 50) for speaker in range(400))
    chunks = split_for_any_worker(assignment, 128, 4)
    assert {len(piece) for chunk in chunks for piece in chunk} == {50}
    assert [len(chunk) for chunk in chunks] == [66] * 4 + [22] * 4 + [12] * 4


def test_a_chunk_is_split_by_its_size_in_bytes() -> None:
    sizes = [[4, 4, 4, 4], [1, 9, 1]]
    assert split_by_size((SpeakerSlice(0, 0, 4), SpeakerSlice(1, 0, 3)), sizes, limit=100) == [
        (SpeakerSlice(0, 0, 4), SpeakerSlice(1, 0, 3))
    ]
    assert split_by_size((SpeakerSlice(0, 1, 4), SpeakerSlice(1, 0, 3)), sizes, limit=8) == [
        (SpeakerSlice(0, 1, 3),),
        (SpeakerSlice(0, 3, 4), SpeakerSlice(1, 0, 1)),
        (SpeakerSlice(1, 1, 2),),
        (SpeakerSlice(1, 2, 3),),
    ]
    assert split_by_size((SpeakerSlice(1, 0, 1), SpeakerSlice(0, 0, 2)), sizes, limit=1) == [
        (SpeakerSlice(1, 0, 1),),
        (SpeakerSlice(0, 0, 1),),
        (SpeakerSlice(0, 1, 2),),
    ]


def test_chunks_of_small_speakers_take_no_more_steps_the_more_fit_into_one(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[SpeakerSlice] = []

    def length(piece: SpeakerSlice) -> int:
        counted.append(piece)
        return piece.stop - piece.start

    monkeypatch.setattr(SpeakerSlice, "__len__", length)
    assignment = tuple(SpeakerSlice(speaker, 0, 1) for speaker in range(5000))
    assert [len(chunk) for chunk in split_into_chunks(assignment, slots=128)] == [4096, 904]
    assert len(counted) <= 2 * len(assignment)


def test_the_least_loaded_of_many_workers_is_found_without_comparing_all() -> None:
    compared = 0

    class Amount(int):
        def __add__(self, other: int) -> Amount:
            return Amount(int(self) + other)

        __radd__ = __add__

        def __lt__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) < int(other)

        __eq__ = int.__eq__
        __hash__ = int.__hash__

    amounts = [[Amount(1 + speaker % 7)] for speaker in range(1000)]
    assignments = longest_first(amounts, 200)
    assert max(map(len, assignments)) < 10
    assert compared <= 20 * len(amounts)
