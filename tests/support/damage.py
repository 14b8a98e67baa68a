"""Damage to recordings of speech, as speech synthesis does it: each function returns a damaged copy.

All take mono samples ``[samples]``, their rate in Hz, and a generator of random numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cloner.audio import Audio

Damage = Callable[[Audio, int, np.random.Generator], Audio]

SPEECH_DB = 25.0
"""Speech is what is at most so much below its loud parts."""

LEAST_SPEECH_S = 1.0
"""Seconds of speech of a recording that is damaged: of a shorter one, hardly anything would be left."""


def speech_bounds(samples: Audio, rate: int) -> tuple[int, int]:
    """The first sample of the speech, and the one after its last."""
    size = rate // 100
    count = len(samples) // size
    power = np.square(samples[: count * size].reshape(count, size)).mean(axis=1) + 1e-12
    loud = np.flatnonzero(power > np.percentile(power, 95) * 10 ** (-SPEECH_DB / 10))
    return int(loud[0]) * size, int(loud[-1] + 1) * size


def cut(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """Without its end: 0.3 to 1 s of speech, at most half of it, and all that is behind it."""
    start, end = speech_bounds(samples, rate)
    missing_s = rng.uniform(0.3, max(0.3, min(1.0, (end - start) / rate / 2)))
    return samples[: end - round(missing_s * rate)]


def padded_end(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """With 1.2 to 3 s of silence at its end."""
    return _joined(samples, _silence(rate, rng))


def padded_start(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """With 1.2 to 3 s of silence at its start."""
    return _joined(_silence(rate, rng), samples)


def _silence(rate: int, rng: np.random.Generator) -> Audio:
    """Digital silence, or noise of -80 or -60 dB."""
    noise = rng.standard_normal(round(rng.uniform(1.2, 3) * rate)) * rng.choice([0, 1e-4, 1e-3])
    return np.asarray(noise, dtype=np.float32)


def _joined(*parts: Audio) -> Audio:
    joined: Audio = np.concatenate(parts, dtype=np.float32)
    return joined


def looped(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """With a stretch of 0.4 to 1.2 s of speech said two to four times more."""
    start, end = speech_bounds(samples, rate)
    size = min(round(rng.uniform(0.4, 1.2) * rate), end - start)
    first = int(rng.integers(start, end - size + 1))
    again = [samples[first : first + size]] * int(rng.integers(2, 5))
    return _joined(samples[: first + size], *again, samples[first + size :])


def with_hole(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """With 0.4 to 1 s of digital silence in the place of speech, not in its first and last eighth."""
    start, end = speech_bounds(samples, rate)
    size = min(round(rng.uniform(0.4, 1.0) * rate), (end - start) // 2)
    margin = (end - start) // 8
    first = int(rng.integers(start + margin, end - margin - size + 1))
    damaged = samples.copy()
    damaged[first : first + size] = 0
    return damaged


def clipped(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """Amplified until its peak is 10 to 18 dB above full scale, and clipped."""
    gain = np.float32(rng.uniform(3, 8) / np.abs(samples).max())
    loud: Audio = np.clip(samples * gain, -1, 1)
    return loud


def nearly_mute(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """35 to 50 dB quieter, in 16 bits."""
    gain = np.float32(10 ** (-rng.uniform(35, 50) / 20))
    return np.round(samples * gain * 2**15).astype(np.float32) / np.float32(2**15)


def sped_up(samples: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """1.6 to 2 times as fast at the same pitch: windows of 40 ms are taken from where they continue the last best."""
    speed, size = rng.uniform(1.6, 2.0), rate // 25
    step, search = size // 2, rate // 100
    window = np.hanning(size).astype(np.float32)
    count = max(1, int((len(samples) - size - search) / speed / step))
    out = np.zeros(count * step + size, np.float32)
    weights = np.zeros_like(out)
    place = 0
    for number in range(count):
        goal = int(number * step * speed)
        if number:
            goal = _continuation(samples, place + step, goal, size, search)
        out[number * step : number * step + size] += samples[goal : goal + size] * window
        weights[number * step : number * step + size] += window
        place = goal
    out /= np.maximum(weights, np.float32(0.01))
    return out


def _continuation(samples: Audio, natural: int, goal: int, size: int, search: int) -> int:
    """The place near `goal` whose window is most like that at `natural`."""
    target = samples[natural : natural + size]
    first = max(0, goal - search)
    near = samples[first : min(len(samples), goal + search + size)]
    if len(target) < size or len(near) < size:
        return min(goal, len(samples) - size)
    likeness = np.correlate(near, target, "valid")
    energy = np.convolve(np.square(near), np.ones(size, np.float32), "valid")
    return first + int(np.argmax(likeness / np.sqrt(energy + 1e-6)))


KINDS: dict[str, Damage] = {
    "cut": cut,
    "padded at the end": padded_end,
    "padded at the start": padded_start,
    "looped": looped,
    "with a hole": with_hole,
    "clipped": clipped,
    "nearly mute": nearly_mute,
    "sped up": sped_up,
}
