"""What a worker asks of a model: the `Engine` protocol and the values that cross it.

An engine gets a whole chunk at a time, of one or several speakers, and gives the segments back in whatever
order they finish. So an engine that speaks one text after another and one that decodes 64 at once stand
behind the same four methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from cloner.audio import Audio, Codes
from cloner.batch import Generation


@dataclass(frozen=True)
class Voice:
    """A speaker's reference as an engine uses it: codes ``[codebooks, frames]`` and what they say."""

    codes: Codes
    text: str

    @cached_property
    def key(self) -> str:
        """Content hash over all codebooks and the text.

        A key over the first codebook alone mixes voices up (seen in other engines' prefix caches).
        """
        digest = hashlib.sha256(repr(self.codes.shape).encode())
        digest.update(np.ascontiguousarray(self.codes, dtype="<i4").tobytes())
        digest.update(self.text.encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class SpeechRequest:
    """One segment to speak. `seed` is the segment's own, whichever worker or slot speaks it."""

    segment: int
    text: str
    voice: Voice
    generation: Generation
    seed: int


@dataclass(frozen=True)
class SegmentAudio:
    """A segment's audio, ``[samples]`` at `SAMPLE_RATE`, and the number of frames it was decoded from."""

    segment: int
    audio: Audio
    frames: int
    truncated: bool = False
    """Whether it was cut at its greatest number of frames, before the model ended it."""


@dataclass(frozen=True)
class SegmentFailure:
    """A segment that failed: a short code for programs and a sentence for people."""

    segment: int
    code: str
    message: str


SpeechResult = SegmentAudio | SegmentFailure


Say = Callable[[str], None]
"""Takes one log line, without prefix."""


class Watch(Protocol):
    """Who looks after a chunk while an engine speaks it. An engine calls it from any of its threads."""

    def started(self, segment: int) -> None:
        """The segment is taken in hand: should the process die now, it may have been this one's fault."""
        ...

    def stopped(self) -> bool:
        """Whether to drop what is not finished and to end. Asked at every step, so it must answer at once."""
        ...


class Unwatched:
    """Nobody looks: a chunk that is spoken to its end."""

    def started(self, segment: int) -> None: ...

    def stopped(self) -> bool:
        return False


UNWATCHED = Unwatched()


class Engine(Protocol):
    """One model on one device. Methods are called from one thread, `load` first and once."""

    name: str
    """Name in settings and registry."""

    slots: int
    """Segments decoded at the same time; after `load` it only changes where memory runs out."""

    @property
    def cache_gb(self) -> float:
        """Memory of its cache, slots and references together, GB of 1024**3 bytes; 0 if it does not size one."""
        ...

    @property
    def steps(self) -> int:
        """Grows with every sign of work; that of an engine which hangs stands still. Read from another thread."""
        ...

    def load(self, say: Say) -> None:
        """Load the models, saying each one's line before it. Raises `LoadFailed` with a one-line reason."""
        ...

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """Codes of reference recordings. Raises `BadReference` where one cannot be used."""
        ...

    def speak(self, lines: Iterable[SpeechRequest], watch: Watch = UNWATCHED) -> Generator[SpeechResult, None, None]:
        """Speak a chunk; exactly one answer a line, in any order, unless it is stopped: then what is not finished is
        dropped.

        Lines may be drawn one by one, when their turn comes: an engine with one slot holds one speaker's
        voice at a time. A line that fails is a `SegmentFailure`; an exception means that the engine is broken.
        """
        ...

    def close(self) -> None:
        """Let go of the models."""
        ...
