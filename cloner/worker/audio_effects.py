"""What is made of a segment's sound where its batch asks for it: no silence at its ends, another sample rate, a
loudness.

Audio is processed in blocks, since that of a long text has hundreds of megabytes. Where there is a loudness, it is
processed twice: to measure it, and to write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from cloner.audio import SAMPLE_RATE, Audio, Samples16
from cloner.audio_bytes import blocks_of
from cloner.errors import SegmentFailed

LEVEL_SAMPLES = SAMPLE_RATE // 100
"""Samples of 10 ms, whose power is compared with that of the loudest."""

SILENCE_DB = 50.0
"""Decibels below the loudest 10 ms from which on it is silent: less than the softest consonants, and more than the
noise of a codec."""

MARGIN_SAMPLES = SAMPLE_RATE // 20
"""Samples of 50 ms that stay of the silence at each end, so that no breath or release is cut."""

PEAK = 10 ** (-1 / 20)
"""The largest sample after a change of loudness: -1 dB of full scale, as a lossy format may add to a peak."""

GATE_S = 0.4
"""Seconds of a block of ITU-R BS.1770. A shorter segment has no loudness."""

WINDOW_S = 30
"""Seconds whose loudness is measured at once: pyloudnorm copies what it measures several times."""


def trimmed(audio: Audio | Samples16) -> Audio | Samples16:
    """The audio without the silence at its ends, but for `MARGIN_SAMPLES`; all of it if there is no sound."""
    step = LEVEL_SAMPLES * 1024
    if not len(audio):
        return audio
    powers = np.concatenate([_powers(audio[start : start + step]) for start in range(0, len(audio), step)])
    loud = np.flatnonzero(powers > powers.max() * 10 ** (-SILENCE_DB / 10))
    if not loud.size:
        return audio
    start, stop = loud[0] * LEVEL_SAMPLES - MARGIN_SAMPLES, (loud[-1] + 1) * LEVEL_SAMPLES + MARGIN_SAMPLES
    return audio[max(0, start) : stop]


def _powers(audio: Audio | Samples16) -> NDArray[np.float64]:
    """The mean squares of each `LEVEL_SAMPLES`; the last may have fewer."""
    squares = np.square(audio, dtype=np.float64)
    return np.add.reduceat(squares, range(0, len(squares), LEVEL_SAMPLES)) / LEVEL_SAMPLES


def resampled(audio: Audio | Samples16, rate: int) -> Iterator[Audio | Samples16]:
    """The audio at another sample rate, in blocks; as it is where the rate is its own."""
    if rate == SAMPLE_RATE:
        yield from blocks_of(audio)
        return
    stream = soxr.ResampleStream(SAMPLE_RATE, rate, 1, dtype="float32")
    left = len(audio)
    for block in blocks_of(audio):
        left -= len(block)
        yield stream.resample_chunk(as_float(block), last=not left)


def as_float(block: Audio | Samples16) -> Audio:
    """The samples in -1..1."""
    samples = block.astype(np.float32, copy=False)
    return samples / np.float32(2**15) if block.dtype == np.int16 else samples


def gain(blocks: Iterable[Audio | Samples16], rate: int, loudness: float) -> float:
    """The factor that gives audio an integrated loudness, LUFS, or less where a sample would be above `PEAK`.

    1 where it has none: it is shorter than `GATE_S`, or silent. Raises `SegmentFailed` if pyloudnorm is not installed.
    """
    try:
        from pyloudnorm import Meter
    except ImportError as error:
        raise SegmentFailed(
            f"a loudness needs pyloudnorm on the worker's box ({error}): install cloner with the extra worker",
            code="output",
        ) from error
    meter = Meter(rate)
    peak = 0.0
    levels: list[float] = []
    for window in _windows(blocks, WINDOW_S * rate):
        peak = max(peak, float(np.abs(window).max(initial=0)))
        if len(window) >= GATE_S * rate:
            meter.integrated_loudness(window)
            levels += meter.blockwise_loudness
    present = _gated(np.array(levels))
    return 1.0 if present is None else min(10 ** ((loudness - present) / 20), PEAK / peak)


def _windows(blocks: Iterable[Audio | Samples16], size: int) -> Iterator[Audio]:
    """The audio in parts of at least `size` samples, but for the last."""
    parts: list[Audio] = []
    for block in blocks:
        parts.append(as_float(block))
        if sum(map(len, parts)) >= size:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


def _gated(levels: NDArray[np.float64]) -> float | None:
    """The integrated loudness that follows from those of all blocks, as BS.1770 says; None if all are silent.

    pyloudnorm computes it of audio in one piece alone.
    """
    loud = levels[levels >= -70]
    if not loud.size:
        return None
    return _mean(loud[loud > _mean(loud) - 10])


def _mean(levels: NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))
