"""The checks on real human voices of five people, and on damaged copies: how many are caught, and how many falsely.

`make voices` measures all recordings (`ops/BENCHMARKS.md`); this is a sample of them.
"""

from __future__ import annotations

import pytest

from tests.support.damage import KINDS
from tests.support.voice_checks import Outcome, check_voices
from tests.support.voices import find_recordings

pytestmark = pytest.mark.slow

DAMAGED_PER_VOICE = 8
"""Recordings that are damaged in each way: 40 of five voices."""

LEAST_CAUGHT = 36
"""Of the 40 of a kind: 90%. Of all recordings 92% of those that are sped up are caught, and more of the others."""


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return check_voices(find_recordings(), damaged_per_voice=DAMAGED_PER_VOICE)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_takes_are_caught(outcome: Outcome, kind: str) -> None:
    assert outcome.damaged[kind].total == 5 * DAMAGED_PER_VOICE
    assert outcome.damaged[kind].failed >= LEAST_CAUGHT, outcome.damaged[kind]


def test_hardly_any_recording_is_suspected(outcome: Outcome) -> None:
    assert outcome.good.total > 1000
    assert outcome.good.failed <= 0.01 * outcome.good.total, outcome.false_alarms
