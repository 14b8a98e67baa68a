"""The interface between a worker and a model: the `Engine` protocol and the values that cross it.

An engine gets a whole chunk at a time, of one or several speakers, and yields each segment as it finishes. So an engine
that generates one text after another and one that decodes 64 at once have the same methods.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from threading import Condition
from typing import Protocol

import numpy as np

from cloner.audio import Audio, Codes, Samples16
from cloner.batch import Generation
from cloner.text.length import estimated_frames


@dataclass(frozen=True)
class Voice:
    """A speaker's reference as an engine uses it: codes ``[codebooks, frames]`` and their transcript."""

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
    """One segment to generate. `seed` belongs to the segment: it does not depend on the worker or the slot."""

    segment: int
    text: str
    voice: Voice
    generation: Generation
    seed: int
    piece: tuple[int, int] | None = None
    """For a piece of a long text, whose `segment` is a number of its own: the segment, and the piece's place in it."""
    language: str = ""
    """The text's, empty if it is not known. Engines need none; what splits texts and checks takes does."""
    with_codes: bool = False
    """Whether the codes are wanted beside the audio."""

    @property
    def estimated_frames(self) -> float:
        """Frames that the text is likely to take, of those that it may take."""
        return min(estimated_frames(self.text), self.generation.max_new_tokens)


WAIT_S = 0.25
"""Seconds after which an engine that waits for requests looks whether its chunk is stopped."""


class RequestQueue(Iterable[SpeechRequest]):
    """A chunk's requests: the `first`, and those that are added while an engine works on it, until it is closed.

    `add` and `close` may be called from any thread, the other methods from the engine's.
    """

    def __init__(self, first: Iterable[SpeechRequest]) -> None:
        self.first = iter(first)
        self._added: deque[SpeechRequest] = deque()
        self._is_closed = False
        self._changed = Condition()

    @classmethod
    def of(cls, requests: Iterable[SpeechRequest]) -> RequestQueue:
        """The requests themselves, if they are a queue; else a closed queue of them."""
        if isinstance(requests, cls):
            return requests
        queue = cls(requests)
        queue.close()
        return queue

    def add(self, request: SpeechRequest) -> None:
        """Add a request, which is generated before those of the first that are not drawn yet."""
        with self._changed:
            self._added.append(request)
            self._changed.notify()

    def close(self) -> None:
        """Let the engine end when it has answered all requests: none will be added."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def draw_first(self) -> None:
        """Draw all of the first: what makes them may belong to the calling thread."""
        self.first = iter(list(self.first))

    def take(self) -> list[SpeechRequest]:
        """What was added since the last time."""
        if not self._added:  # polled at every step, and nearly always empty
            return []
        with self._changed:
            taken = list(self._added)
            self._added.clear()
        return taken

    def wait(self) -> bool:
        """Wait until a request is added, for `WAIT_S` at most; returns false if none is there and none will be."""
        with self._changed:
            if not (self._added or self._is_closed):
                self._changed.wait(WAIT_S)
            return bool(self._added) or not self._is_closed

    def next_group(self, most: int) -> list[SpeechRequest]:
        """At most so many requests, the added ones before the first; waits for one. Empty if none will be added."""
        while True:
            with self._changed:
                group = [self._added.popleft() for _ in range(min(most, len(self._added)))]
            group += islice(self.first, most - len(group))
            if group or not self.wait():
                return group

    def __iter__(self) -> Iterator[SpeechRequest]:
        """For an engine with one slot, which draws the next request when it has answered the one before."""
        while group := self.next_group(1):
            yield from group


@dataclass(frozen=True)
class SegmentAudio:
    """A segment's audio, ``[samples]`` at `SAMPLE_RATE`, and the number of frames it was decoded from.

    Engines give samples in -1..1; a long text that was joined from pieces has samples of 16 bits.
    """

    segment: int
    audio: Audio | Samples16
    frames: int
    truncated: bool = False
    """True if the segment reached its maximum number of frames before the model ended it."""
    codes: Codes | None = None
    """What the audio was decoded from, if the request was `with_codes`."""


@dataclass(frozen=True)
class SegmentFailure:
    """A segment that failed: a short code for programs and a sentence for people."""

    segment: int
    code: str
    message: str


CODEC_FAILED = "codec_failed"
"""The code of a segment whose codes the codec could not decode, for another reason than its memory."""

SpeechResult = SegmentAudio | SegmentFailure


LogFunction = Callable[[str], None]
"""Logs one line, given without prefix."""

StopCheck = Callable[[], bool]
"""Returns True if the work is to be abandoned. Called at every step, so it must return at once."""


class ChunkObserver(Protocol):
    """Follows the progress of a chunk and can stop it. An engine calls it from any of its threads."""

    def started(self, segment: int) -> None:
        """The segment is in flight from now on: if the process dies, the segment may be the cause."""
        ...

    def stopped(self) -> bool:
        """Whether to drop unfinished segments and return. Called at every step, so it must return at once."""
        ...

    def dropped(self, segment: int) -> bool:
        """Whether a segment that has not started is not wanted any more. Asked before it is started; where the answer
        is True, the engine drops its request, and does not ask again."""
        ...


class NullObserver:
    """Ignores progress and never stops the chunk."""

    def started(self, segment: int) -> None: ...

    def stopped(self) -> bool:
        return False

    def dropped(self, segment: int) -> bool:  # noqa: ARG002 - the protocol's
        return False


NULL_OBSERVER = NullObserver()


Speak = Callable[[Iterable[SpeechRequest], ChunkObserver], Generator[SpeechResult | None, None, None]]
"""`Engine.speak`, or a function like it. None is no result: it was woken, and what is waited for may be there."""


class Engine(Protocol):
    """One model on one device. Methods are called from one thread, `load` first and once."""

    name: str
    """Name in settings and registry."""

    slots: int
    """Segments decoded at the same time. After `load` it changes only if memory runs out."""

    warning: str
    """Why it is slower than it could be on this device, as one line; empty if it is not. Set by `load`."""

    trained: bool
    """Whether it speaks: what random weights make is not checked unless a batch asks for that."""

    @property
    def cache_gb(self) -> float:
        """Memory of its cache, slots and references together, GB of 1024**3 bytes; 0 if it does not size one."""
        ...

    @property
    def steps(self) -> int:
        """Number of units of work done. It stands still while the engine hangs. Read from another thread."""
        ...

    def load(self, log: LogFunction) -> None:
        """Load the models, logging one line before each. Raises `LoadFailed` with a one-line reason."""
        ...

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """Codes of reference recordings. Raises `BadReference` if a recording cannot be used."""
        ...

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult | None, None, None]:
        """Generate a chunk: exactly one result a request, in any order, and none for one that `observer` drops. If
        `observer` stops it, unfinished segments are dropped.

        Requests may be drawn one by one, when a slot is free for them: an engine with one slot holds one speaker's
        voice at a time. A `RequestQueue` may grow meanwhile, until it is closed; while nothing is left to generate, the
        engine waits for it. A request that fails yields a `SegmentFailure`; an exception means that the engine is
        broken.
        """
        ...

    def wake(self) -> None:
        """Have `speak` yield None soon, if it waits for what another thread generates; called from any thread. So its
        caller need not wait for the next result to write what others of its threads have finished."""
        ...

    def close(self) -> None:
        """Release the models."""
        ...
