"""The peaks of an audio file: what a waveform of it is drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from cloner.audio import Audio, Samples16

PEAKS = 100
"""Peaks of a file, whatever its length."""


class PeakMeter:
    """Finds the peaks of audio that comes in blocks, of about `samples` samples in all; those beyond do not count."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._at = 0
        self._levels = np.zeros(PEAKS)

    def add(self, block: Audio | Samples16) -> None:
        """Count the next block ``[samples]``."""
        block = block[: self._samples - self._at]
        if not len(block):
            return
        first, last = (at * PEAKS // self._samples for at in (self._at, self._at + len(block) - 1))
        bins = np.arange(first, last + 1)
        starts = np.maximum(-(-bins * self._samples // PEAKS) - self._at, 0)
        highest, lowest = np.maximum.reduceat(block, starts), np.minimum.reduceat(block, starts)
        full = 2**15 if block.dtype == np.int16 else 1
        levels = np.maximum(highest.astype(float), -lowest.astype(float)) / full
        levels[np.diff(starts, append=len(block)) == 0] = 0  # where there are more peaks than samples
        self._levels[first : last + 1] = np.maximum(self._levels[first : last + 1], levels)
        self._at += len(block)

    def metered(self, blocks: Iterable[Audio | Samples16]) -> Iterator[Audio | Samples16]:
        """The blocks as they are; each is counted."""
        for block in blocks:
            self.add(block)
            yield block

    def peaks(self) -> bytes:
        """`PEAKS` bytes: the largest magnitude in each hundredth of the audio, 255 for full scale."""
        levels = np.nan_to_num(self._levels, nan=1.0, posinf=1.0)
        return bytes(np.rint(255 * np.minimum(levels, 1)).astype(np.uint8))


def peaks_of(audio: Audio | Samples16) -> bytes:
    """The peaks of mono samples ``[samples]`` in -1..1, or of 16 bits."""
    meter = PeakMeter(len(audio))
    meter.add(audio)
    return meter.peaks()
