"""Something like speech for checks: syllables of a voice's harmonics, whose vowels and lengths differ."""

from __future__ import annotations

import numpy as np

from cloner.audio import Audio

TEXT = "Somebody says one sentence of some length here."
"""A text that takes about as long as `speech` by default: 47 characters, 3 s."""


def speech(rate: int = 22_050, syllables: int = 14, seed: int = 0) -> Audio:
    """About 0.2 s a syllable, and 0.1 s of silence at both ends; the level is about -15 dB, the noise -80 dB."""
    rng = np.random.default_rng(seed)
    quiet = np.zeros(rate // 10)
    parts = [quiet]
    for _ in range(syllables):
        seconds, pitch = rng.uniform(0.15, 0.22), rng.uniform(100, 140)
        time = np.arange(round(seconds * rate)) / rate
        harmonics = np.arange(1, 26)[:, None]
        weights = np.zeros_like(harmonics, dtype=float)
        for _formant in range(3):
            weights += np.exp(-np.square(harmonics * pitch - rng.uniform(200, 3500)) / (2 * 150**2))
        vowel = (weights * np.sin(2 * np.pi * pitch * harmonics * time)).sum(axis=0)
        vowel *= np.sin(np.pi * time / seconds) ** 0.5
        parts += [0.5 * vowel / np.abs(vowel).max(), np.zeros(round(rng.uniform(0.02, 0.05) * rate))]
    samples = np.concatenate([*parts, quiet])
    return (samples + 1e-4 * rng.standard_normal(len(samples))).astype(np.float32)
