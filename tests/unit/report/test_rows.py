"""Which segments a report lists, and what the JSON says of each."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner.protocol.results import BatchResult, SegmentResult, Suspect
from cloner.report import rows as module
from cloner.report.rows import Listing, OtherAudio, Row, choose_segments, fair_limit
from tests.unit.report.test_page import finished


def judged(
    sizes: dict[str, int], suspicions: dict[int, float], errors: dict[int, str]
) -> tuple[BatchResult, dict[int, SegmentResult]]:
    result, lines = finished(sizes, errors)
    lines |= {index: replace(lines[index], suspicion=value) for index, value in suspicions.items()}
    suspects = {
        line.segment: Suspect(speaker=line.speaker, output=line.output, failed=["too_quiet"])
        for line in lines.values()
        if line.suspicion > 1
    }
    return result.model_copy(update={"suspects": suspects}), lines


def test_suspects_and_failures_come_first_then_some_of_each_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 8)
    batch = judged({"anna": 100, "ben": 100}, {50: 1.2, 60: 3.0, 150: 2.0, 7: 0.9}, {120: "output"})
    assert choose_segments(*batch) == [60, 150, 50, 120, 0, 1, 100, 101]


def test_all_segments_of_a_small_batch_are_listed_but_those_that_were_cancelled() -> None:
    batch = judged({"anna": 3, "ben": 3}, {4: 1.5}, {1: "cut_off", 5: "cancelled"})
    assert choose_segments(*batch) == [4, 1, 0, 2, 3]


def test_the_most_suspicious_are_listed_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    batch = judged({"anna": 9}, {index: 1.1 + index for index in range(8)}, {8: "output"})
    assert choose_segments(*batch) == [7, 6, 5]


def test_more_speakers_than_places_give_the_first_segment_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    batch = judged(dict.fromkeys("abcde", 2), {8: 1.5}, {})
    assert choose_segments(*batch) == [8, 0, 2]


def test_a_suspect_just_above_its_limit_is_above_it_in_the_list() -> None:
    assert json.loads(Row(0, 0, "", "a.wav", suspicion=1.001).to_json())["suspicion"] > 1


def test_a_segment_without_a_line_is_not_listed() -> None:
    result, lines = judged({"anna": 3}, {1: 2.0}, {})
    del lines[1], lines[2]
    assert choose_segments(result, lines) == [0]


def test_what_is_empty_is_left_out() -> None:
    assert json.loads(Row(0, 0, "", "a.wav").to_json()) == {"index": 0, "speaker": 0, "output": "a.wav"}
    row = Row(1, 2, "Hi.", "a.wav", "id", 1.23456, b"\0\xff", 3, 1.5, ["loop"], "", [OtherAudio("take 2", "b.wav")])
    assert json.loads(row.to_json()) == {
        "index": 1,
        "speaker": 2,
        "text": "Hi.",
        "output": "a.wav",
        "id": "id",
        "seconds": 1.23,
        "peaks": "AP8=",
        "take": 3,
        "suspicion": 1.5,
        "failed": ["loop"],
        "others": [{"label": "take 2", "path": "b.wav", "peaks": ""}],
    }


def test_a_number_that_javascript_would_round_is_a_text() -> None:
    found = [json.loads(Row(index, 0, "", "a.wav").to_json())["index"] for index in (2**53 - 1, 2**53, 2**63 - 1)]
    assert found == [2**53 - 1, str(2**53), str(2**63 - 1)]


def test_a_listing_without_rows_is_json_too() -> None:
    assert json.loads("".join(Listing([], [], 0, is_judged=False).json("b"))) == {
        "batch": "b",
        "judged": False,
        "speakers": [],
        "rows": [],
    }


@given(sizes=st.lists(st.integers(0, 50)), total=st.integers(0, 200))
def test_a_fair_limit_is_the_largest_that_fits(sizes: list[int], total: int) -> None:
    limit = fair_limit(sizes, total)
    assert sum(min(size, limit) for size in sizes) <= total
    if sizes and limit < max(sizes):
        assert sum(min(size, limit + 1) for size in sizes) > total
