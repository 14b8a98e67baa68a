"""Speech that sounds unnatural, in ways of speech synthesis: each function returns a damaged copy of mono samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import istft, stft

from cloner.audio import Audio

WINDOW_S = 0.032
"""Seconds of a spectrum whose phases are lost."""


def noisy(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """With white noise that is 5 to 12 dB weaker."""
    level = np.sqrt(np.square(samples).mean()) * 10 ** (-rng.uniform(5, 12) / 20)
    return _audible(samples + level * rng.standard_normal(len(samples)))


def robotic(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """With all phases 0: a buzz of the windows' rate."""
    size = round(rate * WINDOW_S)
    return _audible(istft(np.abs(stft(samples, rate, nperseg=size)[2]), rate, nperseg=size)[1])


def reverberant(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """As in a tiled hall: 0.8 s until an echo is 60 dB weaker."""
    time_s = np.arange(round(0.8 * rate)) / rate
    echo = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / 0.8)
    echo[0] = 3
    return _audible(np.convolve(samples, echo)[: len(samples)])


def _audible(samples: NDArray[np.floating[Any]]) -> Audio:
    scaled: Audio = (0.5 * samples / np.abs(samples).max()).astype(np.float32)
    return scaled


UNNATURAL: dict[str, Callable[[Audio, int, np.random.Generator], Audio]] = {
    "noisy": noisy,
    "robotic": robotic,
    "reverberant": reverberant,
}
