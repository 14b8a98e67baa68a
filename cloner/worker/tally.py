"""What is finished of a chunk, in figures."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cloner.engine.base import SAMPLE_RATE
from cloner.results import SegmentResult


@dataclass
class Tally:
    """Reported in absolute figures: a chunk that runs twice counts once."""

    generated: int = 0
    failed: int = 0
    frames: int = 0
    samples: int = 0
    finished: bool = False

    def add(self, result: SegmentResult) -> None:
        """Count a segment."""
        self.generated += result.generated
        self.failed += not result.generated
        self.frames += result.frames
        self.samples += round(result.audio_s * SAMPLE_RATE)

    def to_json(self) -> str:
        return json.dumps(
            [self.generated, self.failed, self.frames, round(self.samples / SAMPLE_RATE, 3), self.finished]
        )
