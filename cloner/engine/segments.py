"""Segments on their way from a request to codes: checked, waiting for a slot, running.

Requests may be added while a batch of them runs, from any thread.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

import torch

from cloner.engine.base import FRAMES_PER_CHARACTER, Voice
from cloner.engine.base import Line as SpeechRequest
from cloner.engine.checks import check_codes
from cloner.engine.kernels.layout import DRAWS
from cloner.engine.paged_cache import Prefix, pages_of
from cloner.engine.prompt import Prompts, Tokens
from cloner.engine.token_rows import PromptPiece, SlotStart, some
from cloner.errors import SegmentFailed


@dataclass(eq=False)
class Segment:
    """A request on its way: `limit` is how many frames it may have. It has a slot, pages and its voice's prefix while
    it runs."""

    request: SpeechRequest
    prefix_tokens: Tokens
    text: Tokens
    limit: int
    order: int = -1
    frames: int = 0
    finished: bool = False
    slot: int = -1
    prefix: Prefix | None = None
    pages: list[int] = field(default_factory=list)

    @property
    def held_prefix(self) -> Prefix:
        """Its voice's prefix. Raises `RuntimeError` for a segment that does not run."""
        if self.prefix is None:
            raise RuntimeError("the segment has no slot")
        return self.prefix

    @property
    def own_pages(self) -> int:
        """Pages for its text and its frames: own positions begin on a page of their own."""
        return pages_of(len(self.text) + self.limit)

    @property
    def most_pages(self) -> int:
        """Pages that it needs where nobody else has read its voice."""
        return self.own_pages + pages_of(len(self.prefix_tokens))

    @property
    def estimated_frames(self) -> int:
        """Frames that it will probably have."""
        return min(round(len(self.request.text) * FRAMES_PER_CHARACTER), self.limit)

    def start(self) -> SlotStart:
        """How it begins in its slot: the last token of its text is decoded, the others are read before."""
        generator = torch.Generator().manual_seed(self.request.seed)
        return SlotStart(
            last=some(self.text, slice(-1, None)),
            position=len(self.prefix_tokens) + len(self.text) - 1,
            prefix=self.held_prefix.length,
            prefix_pages=self.held_prefix.pages,
            own_pages=self.pages,
            generation=self.request.generation,
            noise=torch.rand(self.limit + 1, DRAWS, generator=generator),
        )


@dataclass
class SegmentFactory:
    """Makes segments from requests. `longest_frames` is the codec's limit, `positions` the model's."""

    prompts: Prompts
    positions: int
    longest_frames: int
    most_pages: int
    """Pages of all slots together: of a segment that needs more, nothing can come."""
    _prefixes: dict[str, Tokens] = field(default_factory=dict)

    def make(self, request: SpeechRequest) -> Segment:
        """Raises `SegmentFailed` if the request cannot be spoken."""
        check_codes(request.voice.codes)
        text = self.prompts.text(request)
        prefix = self._prefix(request.voice)
        prompt = len(prefix) + len(text)
        self.prompts.check(prompt)
        limit = min(request.generation.max_new_tokens, self.longest_frames, self.positions - prompt)
        segment = Segment(request, prefix, text, limit)
        if segment.most_pages > self.most_pages:
            raise SegmentFailed(
                f"reference, text and max_new_tokens need {segment.most_pages} pages of the cache, and it has"
                f" {self.most_pages}: lower max_new_tokens, or raise FISH_MODEL_MEMORY_GB or CLONER_SLOTS",
                code="out_of_memory",
            )
        return segment

    def forget_prefixes(self) -> None:
        """Drop the tokens that are kept while a chunk runs."""
        self._prefixes.clear()

    def _prefix(self, voice: Voice) -> Tokens:
        if voice.key not in self._prefixes:
            self._prefixes[voice.key] = self.prompts.prefix(voice)
        return self._prefixes[voice.key]


class WaitingSegments:
    """A queue, the longest first: whatever else runs at the end is short then. Equal ones keep their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Segment]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, segment: Segment) -> None:
        if segment.order < 0:  # one that waits again keeps its place
            segment.order, self._count = self._count, self._count + 1
        heapq.heappush(self._heap, (-segment.estimated_frames, segment.order, segment))

    def first(self) -> Segment:
        """The next one, which stays in the queue."""
        return self._heap[0][2]

    def pop(self) -> Segment:
        return heapq.heappop(self._heap)[2]


class Inbox:
    """Requests on their way to the scheduler. It is open while a chunk runs."""

    def __init__(self) -> None:
        self._requests: deque[SpeechRequest] = deque()
        self._open = False
        self._lock = Lock()

    def open(self, requests: Iterable[SpeechRequest]) -> None:
        """Begin a chunk with these."""
        with self._lock:
            self._requests = deque(requests)
            self._open = True

    def add(self, request: SpeechRequest) -> bool:
        """Add to the chunk that runs; False if none runs any more. May be called from any thread."""
        with self._lock:
            if self._open:
                self._requests.append(request)
            return self._open

    def take(self) -> list[SpeechRequest]:
        """What has come since the last time."""
        if not self._requests:  # asked at every step, nearly always in vain
            return []
        with self._lock:
            taken = list(self._requests)
            self._requests.clear()
        return taken

    def close_if_empty(self) -> bool:
        """End the chunk, unless something has come."""
        with self._lock:
            self._open = bool(self._requests)
            return not self._open

    def close(self) -> None:
        """End the chunk; what has come is dropped."""
        with self._lock:
            self._open = False
            self._requests.clear()


class ReadingQueue:
    """Prompts that are to be read, in order: a voice's prefix stands before the texts that follow it."""

    def __init__(self) -> None:
        self._queue: deque[tuple[PromptPiece, Segment | None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, piece: PromptPiece, decodes: Segment | None = None) -> None:
        """Read a prompt; `decodes` is the segment that is decoded when it is read."""
        self._queue.append((piece, decodes))

    def take(self, rows: int) -> tuple[list[PromptPiece], list[Segment]]:
        """Pieces that fill at most so many rows (a multiple of `GROUP_ROWS`), and the segments whose prompts end
        there."""
        pieces: list[PromptPiece] = []
        read: list[Segment] = []
        while self._queue and rows:
            piece, segment = self._queue.popleft()
            if piece.rows > rows:
                piece, rest = piece.cut(rows)
                self._queue.appendleft((rest, segment))
            elif segment is not None:
                read.append(segment)
            if len(piece):  # a text may be one token long, which is decoded and not read
                pieces.append(piece)
            rows -= piece.rows
        return pieces, read

    def clear(self) -> None:
        self._queue.clear()
