"""What is measured of a take, against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest

from cloner.audio import Audio
from cloner.checks.codes import repeated_seconds
from cloner.checks.levels import find_silence, frame_levels
from cloner.checks.measures import Take, measure, script_of
from cloner.checks.spectrum import BLOCK_S, loop_likeness, spectra
from tests.support.speech import TEXT, speech

RATE = 16_000


def tone(seconds: float, level_db: float = -20) -> Audio:
    time = np.arange(round(seconds * RATE)) / RATE
    samples: Audio = (10 ** (level_db / 20) * np.sqrt(2) * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    return samples


def silence(seconds: float) -> Audio:
    return np.zeros(round(seconds * RATE), np.float32)


def noises(rate: int, seconds: float) -> Audio:
    """Noises of 80 ms, each of another colour: no stretch is like another."""
    rng = np.random.default_rng(5)
    size = round(0.08 * rate)
    parts = []
    for _ in range(round(seconds / 0.08)):
        spectrum = np.fft.rfft(rng.standard_normal(size))
        places = np.linspace(0, 4000, 9)
        gains_db = np.interp(np.fft.rfftfreq(size, 1 / rate), places, rng.uniform(-20, 20, 9))
        noise = np.fft.irfft(spectrum * 10 ** (gains_db / 20), size)
        parts.append(0.1 * noise / noise.std())
    return np.concatenate(parts).astype(np.float32)


def test_levels_are_of_full_scale_and_end_with_the_take() -> None:
    levels = frame_levels(np.concatenate([silence(0.005), tone(1)]), RATE)
    assert len(levels) == 100
    assert levels == pytest.approx(-20, abs=0.1)


def test_silences_are_found_to_ten_milliseconds() -> None:
    samples = np.concatenate([silence(0.3), tone(1), silence(0.7), tone(1), silence(0.4)])
    found = find_silence(frame_levels(samples, RATE))
    assert (found.start_s, found.pause_s, found.end_s) == pytest.approx((0.3, 0.7, 0.4), abs=0.011)
    assert found.hole_s == pytest.approx(0.7, abs=0.011)
    assert found.speech_s == pytest.approx(2.2, abs=0.011)
    assert found.silent == pytest.approx(1.4 / 3.4, abs=0.01)
    assert found.level_db == pytest.approx(-20, abs=0.1)
    assert found.end_db == -60


def test_digital_silence_between_soft_ends_is_no_hole() -> None:
    fade = np.linspace(1, 0, RATE // 5, dtype=np.float32) ** 4
    word = tone(1)
    word[-len(fade) :] *= fade
    word[: len(fade)] *= fade[::-1]
    found = find_silence(frame_levels(np.concatenate([word, silence(0.5), word]), RATE))
    assert found.pause_s > 0.5
    assert found.hole_s == 0


@pytest.mark.parametrize("lag_s", [0.31, 0.8, 2.2])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_stretch_that_comes_again_is_alike(rate: int, lag_s: float) -> None:
    samples = noises(rate, 6)
    first = rate
    again = np.concatenate([samples[: first + round(lag_s * rate)], samples[first:]])
    assert loop_likeness(spectra(again, rate)) > 0.75
    assert loop_likeness(spectra(samples, rate)) < 0.65


def test_a_loop_at_the_seam_of_two_blocks_is_found() -> None:
    seam = round((BLOCK_S + 0.5) * RATE)
    samples = noises(RATE, BLOCK_S + 7)
    again = np.concatenate([samples[:seam], samples[seam - RATE : seam], samples[seam:]])
    assert loop_likeness(spectra(again, RATE)) > 0.75
    assert loop_likeness(spectra(samples, RATE)) < 0.65


def test_clipping_is_the_part_of_the_samples_that_is_flat() -> None:
    assert measure(Take(speech(RATE), RATE, TEXT)).clipped < 0.001
    loud = np.clip(4 * tone(1, level_db=-3), -1, 1)
    assert measure(Take(loud, RATE, TEXT)).clipped == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / 4), abs=0.08)


@pytest.mark.parametrize(
    ("text", "script"),
    [("Hello 5", "LATIN"), ("Привет, Anna", "CYRILLIC"), ("你好", "CJK"), ("...", ""), ("5", "DIGIT")],
)
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script


def test_punctuation_takes_no_time() -> None:
    samples = speech(RATE)
    assert measure(Take(samples, RATE, "... for ...")).pace == measure(Take(samples, RATE, "for")).pace
    assert measure(Take(samples, RATE, "for [pause:9] you")).pace == measure(Take(samples, RATE, "for you")).pace


def test_codes_repeat_only_if_they_come_again_at_once() -> None:
    row = np.random.default_rng(1).integers(0, 4096, 40)
    again = np.concatenate([row, row[-20:]])
    far = np.concatenate([row[:10], row, row[:10]])
    steady = np.full(60, 7)
    for codes, seconds in ((row, 0), (again, 20), (far, 10), (steady, 0), (row[:5], 0), (np.zeros(0), 0)):
        found = repeated_seconds(np.tile(codes, (10, 1)).astype(np.int32))
        assert found == pytest.approx(seconds * 2048 / 44_100)
