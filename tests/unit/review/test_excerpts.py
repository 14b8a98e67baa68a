"""What the models get of a take."""

from __future__ import annotations

import numpy as np
import pytest

from cloner.review.excerpts import MODEL_RATE, MOST_EXCERPTS, excerpts


@pytest.mark.parametrize(("seconds", "lengths"), [(0.5, [0.5]), (2, [2]), (3, [2, 2]), (600, [2, 2, 2])])
def test_a_long_take_gives_no_more_than_three_excerpts(seconds: float, lengths: list[float]) -> None:
    found = excerpts(np.zeros(round(seconds * 8_000), np.float32), 8_000, 2)
    assert [len(part) / MODEL_RATE for part in found] == pytest.approx(lengths, abs=0.001)


def test_the_start_the_middle_and_the_end_are_among_them() -> None:
    ramp = np.linspace(-0.5, 0.5, 60 * MODEL_RATE, dtype=np.float32)
    found = excerpts(ramp, MODEL_RATE, 2)
    assert len(found) == MOST_EXCERPTS
    assert found[0][0] == ramp[0]
    assert found[1].mean() == pytest.approx(0, abs=0.001)
    assert found[2][-1] == ramp[-1]


@pytest.mark.parametrize("value", [3.0, 3e38])
def test_samples_are_within_full_scale(value: float) -> None:
    noise = np.random.default_rng(0).choice([-value, value], 8_000).astype(np.float32)
    assert np.abs(excerpts(noise, 8_000, 2)[0]).max() == 1


@pytest.mark.parametrize("samples", [[], [0, np.nan, 0], [0, np.inf]], ids=["none", "nan", "infinity"])
def test_there_are_none_of_what_is_no_sound(samples: list[float]) -> None:
    assert excerpts(np.array(samples, np.float32), 8_000, 2) == []
