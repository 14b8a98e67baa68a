"""A batch of the GPU's codec: which segments lie where, and the host memory that their samples come back through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloner.audio import FRAME_SAMPLES, Audio
from cloner.engine.kernels.codec.residual_unit import SUM_ROWS
from cloner.engine.kernels.codec.rows import GAP_FRAMES


def pack(lengths: Sequence[int], places: Iterable[int], most: int) -> list[list[int]]:
    """`places` in batches that hold at most `most` frames of their `lengths`, gaps included; a longer segment has one
    for itself. Each goes into the first batch with room for it, the longest first."""
    batches: list[list[int]] = []
    room: list[int] = []
    for place in sorted(places, key=lambda place: lengths[place], reverse=True):
        needed = lengths[place] + GAP_FRAMES
        number = next((number for number, left in enumerate(room) if left >= needed), None)
        if number is None:
            batches.append([])
            room.append(most + GAP_FRAMES)  # none behind the last segment
            number = -1
        batches[number].append(place)
        room[number] -= needed
    return batches


class HostBuffers:
    """What the host exchanges with the device for one batch of at most `frames`."""

    def __init__(self, frames: int, *, pinned: bool) -> None:
        samples = frames * FRAME_SAMPLES
        self.first = torch.empty(frames, dtype=torch.int32, pin_memory=pinned)
        self.samples = torch.empty(samples, pin_memory=pinned)
        self.finite = torch.empty(samples // SUM_ROWS, dtype=torch.int8, pin_memory=pinned)
        self.copied: torch.cuda.Event | None = None
        """Recorded behind the copies. The host sleeps while it waits for it, and holds no lock."""
        if pinned:
            self.copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def take(self, at: int, samples: Tensor, finite: Tensor) -> None:
        """Copy the device's `samples` behind `at` of ours, without waiting for it."""
        self.samples[at : at + len(samples)].copy_(samples, non_blocking=True)
        begin = at // SUM_ROWS
        self.finite[begin : begin + len(finite)].copy_(finite, non_blocking=True)

    def wait(self) -> None:
        """Wait until the copies are there."""
        if self.copied is not None:
            self.copied.synchronize()


@dataclass
class Batch:
    """Segments, by their `places` in what was asked for, behind one another with gaps between them."""

    places: list[int]
    lengths: list[int]
    """Frames of each."""
    buffers: HostBuffers | None = field(default=None)

    @property
    def frames(self) -> int:
        """Of all together, gaps between them included."""
        return sum(self.lengths) + GAP_FRAMES * (len(self.lengths) - 1)

    @property
    def begins(self) -> list[int]:
        """The first frame of each segment."""
        begins, at = [], 0
        for length in self.lengths:
            begins.append(at)
            at += length + GAP_FRAMES
        return begins

    def first(self, frames: int) -> NDArray[np.int32]:
        """For each of `frames`, the frame at which its segment begins, and -1 in gaps and behind all segments."""
        first = np.full(frames, -1, dtype=np.int32)
        for begin, length in zip(self.begins, self.lengths, strict=True):
            first[begin : begin + length] = begin
        return first

    def wait(self) -> None:
        """Wait until the samples are on the host."""
        if self.buffers is not None:
            self.buffers.wait()

    def finish(self) -> tuple[list[tuple[int, Audio]], list[int]]:
        """Audio of each place, and the places to be decoded again alone, as they are not finite among others."""
        if self.buffers is None:
            raise RuntimeError("the batch was not launched")
        self.buffers.wait()
        samples = self.buffers.samples.numpy()
        finite = self.buffers.finite.view(-1, FRAME_SAMPLES // SUM_ROWS).all(dim=1)
        finished, broken = [], []
        for place, begin, length in zip(self.places, self.begins, self.lengths, strict=True):
            end = begin + length
            audio = samples[begin * FRAME_SAMPLES : end * FRAME_SAMPLES].copy()  # the buffers are used again
            if not finite[begin:end].all():
                if len(self.places) > 1:
                    broken.append(place)
                    continue
                audio.fill(np.nan)
            finished.append((place, audio))
        return finished, broken
