"""Trimming, resampling and loudness of sounds that were made for it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soxr
from pyloudnorm import Meter

from cloner.audio import SAMPLE_RATE, Audio
from cloner.audio_bytes import BLOCK_SAMPLES, to_16_bits
from cloner.errors import SegmentFailed
from cloner.worker.audio_effects import MARGIN_SAMPLES, PEAK, as_float, gain, resampled, trimmed
from tests.support.sounds import quiet, voice

FRAME = SAMPLE_RATE // 100


def loudness(audio: Audio, rate: int = SAMPLE_RATE) -> float:
    return float(Meter(rate).integrated_loudness(audio))


def joined(audio: Audio, rate: int) -> Audio:
    return np.concatenate([as_float(block) for block in resampled(audio, rate)])


@pytest.mark.parametrize("level", [0.005, 0.1, 0.3])
def test_the_silence_at_both_ends_is_removed_and_no_speech(level: float) -> None:
    spoken = voice(1.5, level)
    whole = np.concatenate([quiet(0.7, level / 1000), spoken, quiet(1.1, level / 1000)])
    kept = trimmed(whole)
    start = round(0.7 * SAMPLE_RATE)
    first = int(np.flatnonzero(whole == kept[0])[0])
    assert np.array_equal(whole[first : first + len(kept)], kept)
    assert start - MARGIN_SAMPLES - FRAME <= first <= start
    assert start + len(spoken) <= first + len(kept) <= start + len(spoken) + MARGIN_SAMPLES + FRAME


def test_silence_within_speech_stays() -> None:
    whole = np.concatenate([voice(1.0), quiet(3.0), voice(1.0, 0.03)])
    assert len(trimmed(whole)) == len(whole)


def test_samples_of_16_bits_are_trimmed_at_the_same_places() -> None:
    whole = np.concatenate([quiet(0.5), voice(1.0), quiet(0.5)])
    assert np.array_equal(trimmed(to_16_bits(whole)), to_16_bits(trimmed(whole)))


@pytest.mark.parametrize("samples", [0, 1, 100, 50_000])
def test_where_there_is_no_sound_nothing_is_trimmed(samples: int) -> None:
    assert len(trimmed(np.zeros(samples, dtype=np.float32))) == samples


def test_a_long_silence_is_trimmed_in_blocks() -> None:
    whole = np.concatenate([np.zeros(30 * SAMPLE_RATE, dtype=np.float32), voice(1.0), np.zeros(9, dtype=np.float32)])
    assert len(trimmed(whole)) <= SAMPLE_RATE + MARGIN_SAMPLES + FRAME + 9


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 48_000, 192_000])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 4.1])
def test_audio_is_resampled_in_blocks_as_in_one_piece(rate: int, seconds: float) -> None:
    audio = voice(4.1)[: round(seconds * SAMPLE_RATE)]
    whole = soxr.resample(audio, SAMPLE_RATE, rate)
    blocks = joined(audio, rate)
    assert abs(len(blocks) - len(audio) * rate / SAMPLE_RATE) <= 1
    assert len(blocks) == len(whole)
    assert np.abs(blocks - whole).max() < 1e-4


def test_at_its_own_rate_audio_stays_as_it_is() -> None:
    audio = to_16_bits(voice(3.0))
    blocks = list(resampled(audio, SAMPLE_RATE))
    assert max(map(len, blocks)) <= BLOCK_SAMPLES
    assert np.array_equal(np.concatenate(blocks), audio)
    assert {block.dtype for block in blocks} == {np.dtype(np.int16)}


@pytest.mark.parametrize("level", [0.003, 0.02, 0.06])
@pytest.mark.parametrize("wanted", [-16.0, -23.0, -40.0])
def test_the_gain_gives_the_loudness(level: float, wanted: float) -> None:
    audio = voice(3.0, level)
    factor = gain(resampled(audio, SAMPLE_RATE), SAMPLE_RATE, wanted)
    assert np.abs(audio * factor).max() < PEAK, "or the test would not be one of the loudness"
    assert loudness(audio * np.float32(factor)) == pytest.approx(wanted, abs=0.05)


def test_the_loudness_of_long_audio_is_measured_in_windows() -> None:
    """With loud, soft and silent parts, which the measure leaves out."""
    levels = (0.02, 0.002, 0.05, 0.0, 0.03)
    audio = np.concatenate([part for level in levels for part in (voice(17.3, level), quiet(4.4))])
    factor = gain(resampled(to_16_bits(audio), 24_000), 24_000, -20.0)
    assert loudness(joined(audio, 24_000) * np.float32(factor), 24_000) == pytest.approx(-20.0, abs=0.1)


def test_no_sample_gets_above_the_peak() -> None:
    audio = voice(3.0, 0.02)
    audio[1000::9000] = 0.5  # clicks, which hardly count for the loudness
    factor = gain(resampled(audio, SAMPLE_RATE), SAMPLE_RATE, -5.0)
    assert np.abs(audio * factor).max() == pytest.approx(10 ** (-1 / 20), rel=1e-6)
    assert loudness(audio * np.float32(factor)) < -5.0


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(voice(0.39), id="short"),
        pytest.param(np.zeros(SAMPLE_RATE, dtype=np.float32), id="silent"),
        pytest.param(quiet(2.0, 1e-5), id="below what is heard"),
        pytest.param(np.zeros(0, dtype=np.float32), id="empty"),
    ],
)
def test_what_has_no_loudness_is_left_alone(audio: Audio) -> None:
    assert gain(resampled(audio, SAMPLE_RATE), SAMPLE_RATE, -16.0) == 1.0


@pytest.mark.parametrize("samples", [1, 2])
def test_what_has_no_sample_left_at_a_lower_rate_is_left_alone(samples: int) -> None:
    audio = np.full(samples, 0.1, dtype=np.float32)
    assert len(joined(audio, 8_000)) == 0
    assert gain(resampled(audio, 8_000), 8_000, -16.0) == 1.0


def test_without_pyloudnorm_a_segment_fails_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    with pytest.raises(SegmentFailed, match=r"needs pyloudnorm .* install cloner with the extra worker"):
        gain([], SAMPLE_RATE, -16.0)
