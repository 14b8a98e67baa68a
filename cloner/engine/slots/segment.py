"""A segment while it is decoded in a slot."""

from __future__ import annotations

from dataclasses import dataclass

from cloner.engine.base import SegmentFailure, SpeechRequest
from cloner.engine.segment_codes import OUT_OF_MEMORY
from cloner.engine.tokens import Tokens


@dataclass(eq=False)
class SlotSegment:
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


def out_of_memory(segment: SlotSegment) -> SegmentFailure:
    """The result of a segment for which the device has no memory."""
    return SegmentFailure(segment.request.segment, "out_of_memory", OUT_OF_MEMORY)
