"""Segments on their way from a request to codes: checked, waiting for a slot, running."""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter

import torch
from torch import Tensor

from cloner.audio import check_codes
from cloner.engine.base import SegmentFailure, SpeechRequest, Voice
from cloner.engine.kernels.step.layout import DRAWS
from cloner.engine.prompt import PromptBuilder
from cloner.engine.token_rows.paged_cache import Prefix, pages_of
from cloner.engine.token_rows.rows import PromptPiece, SlotStart, some
from cloner.engine.tokens import Tokens
from cloner.errors import SegmentFailed

MADE_AHEAD, MADE_A_STEP = 16, 3
"""Segments that are made before there is a slot for them, and how many of them beside one step: making three takes
less time than the shortest step."""


@dataclass(eq=False)
class RowSegment:
    """A request with its prompt and its random numbers; `limit` is its maximum number of frames.

    While it runs, it has a slot, pages and its voice's prefix; from step `first_step` on, a frame is decoded a step.
    """

    request: SpeechRequest
    prefix_tokens: Tokens
    text: Tokens
    limit: int
    noise: Tensor
    rank: tuple[float, int] = (0.0, 0)
    """Its place among those that wait: the lowest gets a slot first."""
    first_step: int = 0
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
        """Pages that it needs if no other segment has read its voice."""
        return self.own_pages + pages_of(len(self.prefix_tokens))

    def start(self) -> SlotStart:
        """How it begins in its slot: the last token of its text is decoded, the others are read before."""
        return SlotStart(
            last=some(self.text, slice(-1, None)),
            position=len(self.prefix_tokens) + len(self.text) - 1,
            prefix=self.held_prefix.length,
            prefix_pages=self.held_prefix.pages,
            own_pages=self.pages,
            generation=self.request.generation,
            noise=self.noise,
        )


@dataclass
class SegmentFactory:
    """Makes segments from requests. `max_frames` is the codec's limit, `positions` the model's."""

    prompts: PromptBuilder
    positions: int
    max_frames: int
    most_pages: int
    """Pages of all slots together: of a segment that needs more, nothing can come."""
    _prefixes: dict[str, Tokens] = field(default_factory=dict)

    def make(self, request: SpeechRequest) -> RowSegment:
        """Raises `SegmentFailed` if the request cannot be spoken."""
        prefix = self._prefix(request.voice)
        text = self.prompts.text(request)
        prompt = len(prefix) + len(text)
        self.prompts.check_length(prompt)
        limit = min(request.generation.max_new_tokens, self.max_frames, self.positions - prompt)
        noise = torch.rand(limit + 1, DRAWS, generator=torch.Generator().manual_seed(request.seed))
        segment = RowSegment(request, prefix, text, limit, noise)
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
            check_codes(voice.codes)
            self._prefixes[voice.key] = self.prompts.prefix(voice)
        return self._prefixes[voice.key]


class WaitingSegments:
    """Requests that wait for a slot, the longest first, so that whatever runs at the end is short; equal ones in their
    order. Segments are made from the first few ahead, while the device is busy: a text takes a while to become tokens.
    """

    def __init__(self, factory: SegmentFactory) -> None:
        self._factory = factory
        self._heap: list[tuple[float, int, SpeechRequest]] = []
        self._count = 0
        self._made: deque[RowSegment] = deque()
        self.failures: list[SegmentFailure] = []
        """Of requests that cannot be spoken, until the scheduler takes them."""

    def __bool__(self) -> bool:
        return bool(self._made or self._heap)

    def push(self, request: SpeechRequest, *, late: bool = False) -> None:
        """Add a request. One that comes `late`, while others run, is before those that are as long: as an attempt
        again, it may fail, and another follow it."""
        self._count += 1
        heapq.heappush(self._heap, (-request.estimated_frames, -self._count if late else self._count, request))

    def push_back(self, segment: RowSegment) -> None:
        """Let one that ran wait again, in its old place."""
        insort(self._made, segment, key=attrgetter("rank"))

    def first(self) -> RowSegment | None:
        """The next segment, which keeps waiting; None if there is none."""
        while self._heap and (not self._made or self._heap[0][:2] < self._made[0].rank):
            self._make()
        return self._made[0] if self._made else None

    def pop(self) -> None:
        """Take the first segment away."""
        self._made.popleft()

    def make_some(self) -> None:
        """Make segments ahead."""
        for _ in range(MADE_A_STEP):
            if self._heap and len(self._made) < MADE_AHEAD:
                self._make()

    def _make(self) -> None:
        rank, order, request = heapq.heappop(self._heap)
        try:
            segment = self._factory.make(request)
        except SegmentFailed as failure:
            self.failures.append(SegmentFailure(request.segment, failure.code, failure.message))
        else:
            segment.rank = rank, order
            insort(self._made, segment, key=attrgetter("rank"))


class ReadingQueue:
    """Prompts that are to be read, in order: a voice's prefix stands before the texts that follow it."""

    def __init__(self) -> None:
        self._queue: deque[tuple[PromptPiece, RowSegment | None]] = deque()
        self.rows = 0
        """Rows that all of it takes."""

    def add(self, piece: PromptPiece, decodes: RowSegment | None = None) -> None:
        """Read a prompt; `decodes` is the segment that is decoded when it is read."""
        self._queue.append((piece, decodes))
        self.rows += piece.rows

    def take(self, rows: int) -> tuple[list[PromptPiece], list[RowSegment]]:
        """Pieces that fill at most so many rows (a multiple of `GROUP_ROWS`), and the segments whose prompts end
        there."""
        pieces: list[PromptPiece] = []
        read: list[RowSegment] = []
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
            self.rows -= piece.rows
        return pieces, read

    def clear(self) -> None:
        self._queue.clear()
        self.rows = 0
