"""A segment while it is decoded, and its codes when it is finished."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cloner.audio import FRAMES_PER_CHARACTER
from cloner.engine.base import SegmentFailure, SpeechRequest
from cloner.engine.tokens import Tokens

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


@dataclass(eq=False)
class Segment:
    """A request with its prompt: `prefix_tokens` of the reference, then `text`. Its next token goes to `position`."""

    request: SpeechRequest
    prefix_tokens: int
    text: Tokens
    max_frames: int
    position: int = 0
    frames: int = 0
    finished: bool = False

    @property
    def needed_positions(self) -> int:
        """Positions that it takes in a slot."""
        return self.prefix_tokens + len(self.text) + self.max_frames

    @property
    def estimated_frames(self) -> int:
        """Frames that its text is likely to take."""
        return min(round(len(self.request.text) * FRAMES_PER_CHARACTER), self.max_frames)


def out_of_memory(segment: Segment) -> SegmentFailure:
    """The result of a segment for which the device has no memory."""
    return SegmentFailure(segment.request.segment, "out_of_memory", OUT_OF_MEMORY)
