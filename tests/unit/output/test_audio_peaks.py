"""Peaks of audio, whole and in blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloner.audio import Audio
from cloner.audio_bytes import to_16_bits
from cloner.output.audio_peaks import PEAKS, PeakMeter, peaks_of


def test_a_peak_is_the_largest_magnitude_of_its_hundredth() -> None:
    audio = np.zeros(1000, dtype=np.float32)
    audio[5], audio[995], audio[500] = 1.0, -0.5, 0.2
    peaks = list(peaks_of(audio))
    assert (peaks[0], peaks[50], peaks[99]) == (255, 51, 128)
    assert sum(peaks) == 255 + 51 + 128


def test_samples_of_16_bits_have_the_same_peaks() -> None:
    audio = np.sin(np.arange(5000, dtype=np.float32) / 300)
    assert peaks_of(to_16_bits(audio)) == peaks_of(audio)
    assert peaks_of(np.full(500, -(2**15), dtype=np.int16)) == bytes([255]) * PEAKS


def test_what_cannot_be_drawn_is_full_scale_or_nothing() -> None:
    assert set(peaks_of(np.array([np.nan, np.inf, -7.0] * 100, dtype=np.float32))) == {255}
    assert peaks_of(np.zeros(0, dtype=np.float32)) == bytes(PEAKS)


@given(
    audio=st.lists(st.floats(-1, 1, width=32), max_size=450).map(lambda samples: np.array(samples, dtype=np.float32)),
    cuts=st.lists(st.integers(0, 450), max_size=5).map(sorted),
    beyond=st.integers(0, 20),
)
def test_blocks_have_the_peaks_of_the_whole_and_go_on_as_they_are(audio: Audio, cuts: list[int], beyond: int) -> None:
    meter = PeakMeter(len(audio))
    blocks = [*np.split(audio, cuts), np.ones(beyond, dtype=np.float32)]
    assert [list(block) for block in meter.metered(blocks)] == [list(block) for block in blocks]
    assert meter.peaks() == peaks_of(audio)
