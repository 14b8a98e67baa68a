"""A segment's pieces, the attempts at them, and what the checks say of these."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, isfinite

from cloner.audio import SAMPLE_RATE, Audio, Samples16
from cloner.audio_bytes import to_16_bits
from cloner.batch import attempt_seed
from cloner.engine.base import SegmentAudio, SpeechRequest
from cloner.protocol.results import Attempt


@dataclass
class CheckedSegment:
    """What the checks say of a segment."""

    attempts: list[Attempt] = field(default_factory=list)
    """Those at pieces of which one failed."""
    suspicion: float = 0.0
    """As that of a line of the record."""

    def described(self, *, generated: bool) -> list[Attempt]:
        """The attempts as the segment's line has them: that which is kept has no file of its own, unless the segment
        has none either."""
        if generated:
            return [replace(attempt, file="") if attempt.kept else attempt for attempt in self.attempts]
        return [replace(attempt, kept=False) for attempt in self.attempts]


@dataclass(eq=False)
class Piece:
    """A piece, and the attempts at it so far; `request` is that of the first."""

    request: SpeechRequest
    attempts: list[Attempt] = field(default_factory=list)
    best: int = -1
    """Place among them of that with the least `suspicion`, whose audio is `audio`."""
    audio: SegmentAudio | None = None
    suspicion: float = 0.0

    @property
    def segment(self) -> int:
        return self.request.piece[0] if self.request.piece else self.request.segment

    @property
    def place(self) -> int:
        return self.request.piece[1] if self.request.piece else 0

    def next_request(self) -> SpeechRequest:
        seed = attempt_seed(self.request.seed, len(self.attempts) + 1)
        return replace(self.request, seed=seed, with_codes=True)

    def add(self, attempt: Attempt, audio: SegmentAudio, suspicion: float) -> None:
        """Add an attempt. The audio of one that failed is kept as samples of 16 bits, those of its file."""
        if self.audio is None or suspicion < self.suspicion:
            self.best, self.suspicion = len(self.attempts), suspicion
            self.audio = replace(audio, audio=to_16_bits(audio.audio)) if attempt.failed else audio
        self.attempts.append(attempt)


def seconds_of(samples: Audio | Samples16) -> float:
    """Its length, to the millisecond."""
    return round(len(samples) / SAMPLE_RATE, 3)


def rounded_up(suspicion: float) -> float:
    """To three digits; what is above 1, the limit, stays above it."""
    return ceil(1000 * suspicion) / 1000 if isfinite(suspicion) else suspicion
