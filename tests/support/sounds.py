"""Sounds like those of a voice, made by arithmetic."""

from __future__ import annotations

import numpy as np

from cloner.audio import SAMPLE_RATE, Audio


def voice(seconds: float, level: float = 0.1, pitch: float = 120.0, seed: int = 0) -> Audio:
    """Four syllables a second of a vowel with overtones; at each end 80 ms of a consonant, a noise of a fiftieth."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    vowel = sum(np.sin(2 * np.pi * pitch * n * time + n) / n for n in range(1, 25))
    sound = vowel * (0.55 - 0.45 * np.cos(8 * np.pi * time))
    consonant = round(0.08 * SAMPLE_RATE)
    noise = np.random.default_rng(seed).normal(0, 0.02, consonant)
    sound[:consonant] = noise
    sound[-consonant:] = noise
    return (level * sound).astype(np.float32)


def quiet(seconds: float, level: float = 1e-4, seed: int = 1) -> Audio:
    """The noise that a codec makes of silence: -80 dB of full scale."""
    return np.random.default_rng(seed).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)
