"""Levels of a take in frames of 10 ms, and what follows from them: where its speech is, and where it is silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloner.audio import Audio

FRAME_S = 0.01
"""Seconds of a frame: one or more periods of a voice of 100 Hz."""

FLOOR_DB = -120.0
"""Level of a frame of zeros, dB of full scale."""

DIGITAL_SILENCE_DB = -100.0
"""Below this level a frame is zeros: one bit of 16 that changes now and then has -96 dB."""

LOUD_PERCENTILE = 95
"""The percentile of the frames' levels that is the level of a take: that of its vowels, also if it is mostly silent."""

ACTIVE_DB = 30.0
"""A frame is active if it is at most so much below the take's level, and no digital silence: weak consonants are 20 to
25 dB below vowels."""

END_FRAMES = 3
"""Frames whose level is that of the take's end: 30 ms, in which half of the recordings of one person fade out. It is
that of their mean power, so that a sound in one of them counts: the last may be the pause of a stop consonant."""

QUIETEST_END_DB = -60.0
"""Ends that are quieter are alike."""

Levels = NDArray[np.float32]
"""Levels in dB of full scale, ``[frames]``."""


@dataclass(frozen=True, slots=True)
class Silence:
    """How loud a take is, and where it is silent. All are 0 or `FLOOR_DB` if it has no sound."""

    level_db: float
    """Level of the loud frames, dB of full scale."""
    speech_s: float
    """Seconds from the first to the last active frame, less what pauses have beyond `COUNTED_PAUSE_S`."""
    silent: float
    """The part of the frames that are not active, 0 to 1."""
    start_s: float
    """Seconds of silence at the start."""
    end_s: float
    """Seconds of silence at the end."""
    pause_s: float
    """Seconds of the longest silence between."""
    hole_s: float
    """Seconds of the longest digital silence between that begins or ends in the midst of sound."""
    end_db: float
    """Level of the last 30 ms, compared with the take's."""


COUNTED_PAUSE_S = 0.2
"""Seconds of each pause that count as speech: how long speakers pause says little about how fast they speak."""

NO_SOUND = Silence(FLOOR_DB, 0, 1, 0, 0, 0, 0, QUIETEST_END_DB)


def frame_levels(samples: Audio, rate: int) -> Levels:
    """The level of each frame. A take's last sample ends its last frame; what is left over is at its start."""
    size = max(1, round(rate * FRAME_S))
    return levels_of(samples[len(samples) % size :], size)


def levels_of(samples: Audio, size: int) -> Levels:
    """The level of each frame of `size` samples, from the first sample on; what is left over is not measured."""
    count = len(samples) // size
    frames = samples[: count * size].reshape(count, size)
    power = np.einsum("ij,ij->i", frames, frames) / np.float32(size)
    levels: Levels = 10 * np.log10(power + np.float32(10 ** (FLOOR_DB / 10)))
    return levels


def find_silence(levels: Levels) -> Silence:
    """Where a take with these levels is silent."""
    level = float(np.percentile(levels, LOUD_PERCENTILE)) if len(levels) else FLOOR_DB
    if level <= DIGITAL_SILENCE_DB:
        return NO_SOUND
    # In a take that is nearly mute, the limit is among the levels of digital silence.
    quietest = max(level - ACTIVE_DB, DIGITAL_SILENCE_DB)
    active = np.flatnonzero(levels > quietest)
    first, last = int(active[0]), int(active[-1])
    gaps = np.diff(active) - 1
    counted = np.minimum(gaps, round(COUNTED_PAUSE_S / FRAME_S)).sum()
    return Silence(
        level_db=level,
        speech_s=float(len(active) + counted) * FRAME_S,
        silent=1 - len(active) / len(levels),
        start_s=first * FRAME_S,
        end_s=(len(levels) - 1 - last) * FRAME_S,
        pause_s=float(gaps.max(initial=0)) * FRAME_S,
        hole_s=_longest_hole(levels[first : last + 1], quietest) * FRAME_S,
        end_db=max(_mean_level(levels[-END_FRAMES:]) - level, QUIETEST_END_DB),
    )


def _mean_level(levels: Levels) -> float:
    """The level of the frames' mean power."""
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))


def _longest_hole(levels: Levels, quietest: float) -> int:
    """Frames of the longest digital silence with sound, louder than `quietest`, directly before or behind it. The first
    and the last frame have sound."""
    zeros = np.concatenate([[False], levels < DIGITAL_SILENCE_DB, [False]])
    starts, ends = np.flatnonzero(zeros[1:] & ~zeros[:-1]), np.flatnonzero(zeros[:-1] & ~zeros[1:])
    # Next to a hole is a frame that is partly within it.
    before = np.maximum(levels[starts - 1], levels[np.maximum(starts - 2, 0)])
    behind = np.maximum(levels[ends], levels[np.minimum(ends + 1, len(levels) - 1)])
    sudden = np.maximum(before, behind) > quietest
    return int((ends - starts)[sudden].max(initial=0))
