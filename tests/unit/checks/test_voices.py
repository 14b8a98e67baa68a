"""The checks on real human voices in five languages, and on damaged copies: how many are caught, and how many falsely.

`make voices` measures all recordings (`ops/BENCHMARKS.md`); this is a sample of them.
"""

from __future__ import annotations

import pytest

from tests.support.damage import KINDS
from tests.support.voice_checks import check_voices
from tests.support.voices import find_recordings

pytestmark = pytest.mark.slow

DAMAGED_PER_VOICE = 8
"""Recordings that are damaged in each way: 40 of five voices."""

LEAST_CAUGHT = 38
"""Of the 40 of a kind: 95%."""


def test_damaged_takes_are_caught_and_hardly_any_recording_is_suspected() -> None:
    """One test: the worker processes of a test run would each measure all recordings."""
    outcome = check_voices(find_recordings(), damaged_per_voice=DAMAGED_PER_VOICE)
    assert outcome.damaged.keys() == KINDS.keys()
    assert {count.total for count in outcome.damaged.values()} == {5 * DAMAGED_PER_VOICE}
    missed = {kind: str(count) for kind, count in outcome.damaged.items() if count.failed < LEAST_CAUGHT}
    assert missed == {}
    assert outcome.good.total > 1000
    assert outcome.good.failed <= 0.01 * outcome.good.total, outcome.false_alarms
