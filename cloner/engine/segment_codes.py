"""A finished segment's codes, or why it has none, and how well the slots were used meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cloner.engine.base import SpeechRequest

OUT_OF_MEMORY = (
    "the device's memory ran out: use a shorter reference, split the text, or start fewer workers on the device"
)


@dataclass
class SlotUsage:
    """How well the slots were used."""

    steps: int = 0
    frames: int = 0
    slot_steps: int = 0

    @property
    def occupancy(self) -> float:
        """Frames generated, as a fraction of what all slots could have generated in the same steps."""
        return self.frames / self.slot_steps if self.slot_steps else 0.0


@dataclass(frozen=True)
class SegmentCodes:
    """A finished segment's codes ``[codebooks, frames]``, on the device. `truncated` if it reached its maximum number
    of frames before the model ended it."""

    request: SpeechRequest
    codes: Tensor
    truncated: bool
