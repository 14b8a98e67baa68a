"""The course of a take's spectrum: how fast it changes, and whether a stretch of it comes again at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import NDArray

from cloner.audio import Audio

SPECTRUM_RATE = 8_000
"""Samples a second, at least, of which spectra are computed: up to 4 kHz they tell the sounds of speech apart."""

STEP_S = 0.016
"""Seconds between two spectra; each is of twice as much."""

LOWEST_HZ, HIGHEST_HZ = 62.5, 4_000.0
"""Frequencies that are looked at."""

BANDS = 18
"""Bands of a spectrum, at most: about as many as the ear has up to 4 kHz."""

RANGE_DB = 30.0
"""Spectra that are so much weaker than loud ones are no speech, and like none."""

CHANGE_STEPS = 2
"""Steps within which the change of a spectrum is measured: 32 ms, in which few sounds of speech are over."""

SHORTEST_S, LONGEST_S = 0.25, 2.5
"""Seconds of a stretch that comes again: a syllable to a phrase."""

LEAST_SPEECH_S = 0.2
"""Seconds of speech in such a stretch: less is alike by chance."""

BLOCK_STEPS = 64
"""Spectra that are computed at once."""

BLOCK_S = 30.0
"""Seconds of a take that are compared at once, so that a long one takes no more memory: about 6 MB."""


@dataclass(frozen=True, slots=True)
class Spectra:
    """The form of a take's spectrum at each step."""

    forms: NDArray[np.float32]
    """Log powers of the bands, less their means over the take, ``[steps, bands]``: vectors of length 1, or 0 where
    there is no speech."""
    active: NDArray[np.bool_]
    """Where there is speech, ``[steps]``."""


NO_SPECTRA = Spectra(np.zeros((0, BANDS), np.float32), np.zeros(0, np.bool_))


def spectra(samples: Audio, rate: int) -> Spectra:
    """The spectra of a take."""
    bands = _bands(*_coarser(samples, rate))
    if not len(bands):
        return NO_SPECTRA
    loudness = bands.sum(axis=1)
    loud = np.float32(np.percentile(loudness, 95))
    active = loudness > loud * np.float32(10 ** (-RANGE_DB / 10))
    if not active.any():
        return NO_SPECTRA
    forms = np.log(bands + loud * np.float32(1e-5))
    forms -= forms[active].mean(axis=0)
    forms /= np.linalg.norm(forms, axis=1, keepdims=True) + np.float32(1e-9)
    forms[~active] = 0
    return Spectra(forms, active)


def _coarser(samples: Audio, rate: int) -> tuple[Audio, float]:
    """Fewer samples a second, at least `SPECTRUM_RATE`, and their rate. Means of neighbours are a coarse filter, and a
    fast one."""
    factor = max(1, rate // SPECTRUM_RATE)
    if factor == 1:
        return samples, rate
    count = len(samples) // factor
    total = samples[: count * factor : factor].copy()
    for place in range(1, factor):
        total += samples[place : count * factor : factor]
    return total / np.float32(factor), rate / factor


def _bands(samples: Audio, rate: float) -> NDArray[np.float32]:
    """The power of each band at each step, ``[steps, bands]``."""
    step = max(1, round(rate * STEP_S))
    window, size, firsts = _plan(step, rate)
    if len(samples) < 2 * step:
        return np.zeros((0, BANDS), np.float32)
    frames = sliding_window_view(samples, 2 * step)[::step]
    bands = np.empty((len(frames), len(firsts) - 1), np.float32)
    # A block's arrays are small enough for the allocator to keep: larger ones are new pages of the kernel each time.
    for start in range(0, len(frames), BLOCK_STEPS):
        spectrum = np.fft.rfft(frames[start : start + BLOCK_STEPS] * window, size, axis=1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        bands[start : start + BLOCK_STEPS] = np.add.reduceat(power[:, : firsts[-1]], firsts[:-1], axis=1)
    return bands


@lru_cache(maxsize=16)  # one for each rate
def _plan(step: int, rate: float) -> tuple[NDArray[np.float32], int, NDArray[np.intp]]:
    """The window of a spectrum, the size of its transform, and the transform's first values of each band."""
    size = -(-2 * step // 32) * 32  # one with large prime factors would take several times as long
    edges = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, rate / 2), BANDS + 1) * (size / rate)
    return np.hanning(2 * step).astype(np.float32), size, np.unique(np.round(edges).astype(np.intp))


def change(of: Spectra) -> float:
    """How unlike two spectra of speech are that are `CHANGE_STEPS` apart, 0 to 2: the faster the speech, the more."""
    both = of.active[CHANGE_STEPS:] & of.active[:-CHANGE_STEPS]
    if not both.any():
        return 0.0
    return float(1 - np.einsum("ij,ij->i", of.forms[CHANGE_STEPS:], of.forms[:-CHANGE_STEPS])[both].mean())


def loop_likeness(of: Spectra) -> float:
    """How like each other the two neighbouring stretches are that are most so: 1 if they are the same, about 0 if they
    have nothing in common. Their length may be anything from `SHORTEST_S` to `LONGEST_S`."""
    overlap = round(2 * LONGEST_S / STEP_S)
    starts = range(0, max(1, len(of.forms) - overlap), round(BLOCK_S / STEP_S))
    ends = [start + round(BLOCK_S / STEP_S) + overlap for start in starts]
    return max(_likeness(of.forms[start:end], of.active[start:end]) for start, end in zip(starts, ends, strict=True))


def _likeness(forms: NDArray[np.float32], active: NDArray[np.bool_]) -> float:
    total = len(forms)
    shortest, longest = round(SHORTEST_S / STEP_S), min(round(LONGEST_S / STEP_S), total // 2)
    if longest < shortest:
        return 0.0
    lags = longest - shortest + 1
    # sums[t, i]: likeness of the spectra before t to those `shortest + i` later, summed.
    sums = np.zeros((total + 1, lags), np.float32)
    np.cumsum(_likeness_by_lag(forms, shortest, lags), axis=0, out=sums[1:])
    counts = np.concatenate([[0], np.cumsum(active)]).astype(np.float32)
    least = np.float32(LEAST_SPEECH_S / STEP_S)
    starts = total - 2 * shortest + 1
    # later[t, i] is sums[t + shortest + i, i]: the sum at the end of a stretch that begins at t.
    flat = np.concatenate([sums.ravel(), np.full(lags * lags, -np.inf, np.float32)])
    size = flat.itemsize
    later = as_strided(flat[shortest * lags :], (starts, lags), (lags * size, (lags + 1) * size), writeable=False)
    spoken = sliding_window_view(np.concatenate([counts, np.zeros(lags, np.float32)])[shortest:], lags)[:starts]
    likeness = (later - sums[:starts]) / np.maximum(spoken - counts[:starts, None], least)
    # A stretch and the next must both be within the take.
    twice = np.arange(starts)[:, None] + 2 * np.arange(lags) <= total - 2 * shortest
    return float(likeness[twice].max(initial=0))


def _likeness_by_lag(forms: NDArray[np.float32], shortest: int, lags: int) -> NDArray[np.float32]:
    """``[steps, lags]``: how like a spectrum is to that which comes `shortest` and more steps later; 0 beyond the
    end."""
    total = len(forms)
    padded = np.concatenate([forms, np.zeros((shortest + lags, forms.shape[1]), np.float32)])
    found = np.empty((total, lags), np.float32)
    # Products of fewer than 2**18 multiplications: OpenBLAS divides larger ones among threads, which spin while they
    # wait for each other. With two threads that took six times as much processor as all checks without it.
    block = 32
    for start in range(0, total, block):
        stop = min(start + block, total)
        square = forms[start:stop] @ padded[start + shortest : stop + shortest + lags].T
        row, column = square.strides
        found[start:stop] = as_strided(square, (stop - start, lags), (row + column, column), writeable=False)
    return found
