"""Continuous batching over token rows: which segment runs in which slot, and which prompts are read beside them.

The loop is three verbs: schedule, run, postprocess. A free slot is given at once to the longest segment that waits, if
the cache has the pages that it may need; its prompt is read as rows of the next steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch

from cloner.engine.base import UNWATCHED, Watch
from cloner.engine.base import Line as SpeechRequest
from cloner.engine.base import NotSpoken as SegmentFailure
from cloner.engine.checks import NOT_NUMBERS
from cloner.engine.gpu_step import Statuses, StepDevice, StepRows
from cloner.engine.kernels.layout import CONTINUES, DRAWS, NOT_FINITE
from cloner.engine.memory import ran_out
from cloner.engine.paged_cache import PageAllocator, PrefixCache
from cloner.engine.prompt import Tokens
from cloner.engine.scheduler import OUT_OF_MEMORY, SegmentCodes, Use
from cloner.engine.segments import Inbox, ReadingQueue, Segment, SegmentFactory, WaitingSegments
from cloner.engine.slot_backoff import SlotBackoff
from cloner.engine.token_rows import PromptPiece, SlotStart
from cloner.errors import SegmentFailed
from cloner.logs import get_logger

Answer = SegmentCodes | SegmentFailure


@dataclass(frozen=True)
class _Plan:
    """A step: the segments that are decoded, and what is read beside them."""

    decode: list[Segment]
    prompts: list[PromptPiece]


@dataclass
class Scheduler:
    """Generates the codes of chunks, one chunk after another."""

    device: StepDevice
    factory: SegmentFactory
    use: Use = field(default_factory=Use)

    def __post_init__(self) -> None:
        self.inbox = Inbox()
        self.backoff = SlotBackoff(self.device.slots)
        self._waiting = WaitingSegments()
        self._answers: deque[Answer] = deque()
        self._empty()

    @torch.inference_mode()
    def run(self, requests: Iterable[SpeechRequest], watch: Watch = UNWATCHED) -> Iterator[Answer]:
        """Generate all requests, and those that are added meanwhile (`inbox`); exactly one answer each, unless it is
        stopped: then what is not finished is dropped."""
        self._begin(requests)
        launched: deque[tuple[_Plan, Statuses]] = deque()
        try:
            while not watch.stopped():
                plan, out_of_memory = None, False
                try:
                    plan = self._schedule(watch)
                    if plan:
                        launched.append((plan, self._run(plan)))
                    if len(launched) > self.device.pipeline_depth or (launched and not plan):
                        self._postprocess(*launched.popleft())
                except (RuntimeError, MemoryError) as error:
                    if not ran_out(error):
                        raise
                    out_of_memory = True
                if out_of_memory:  # out here, because the error holds on to the memory that its frames looked at
                    launched.clear()
                    self._make_room()
                while self._answers:
                    yield self._answers.popleft()
                if not (plan or launched or self._running or self._waiting) and self.inbox.close_if_empty():
                    break
        finally:
            self.inbox.close()

    def _schedule(self, watch: Watch) -> _Plan | None:
        """Admit what there is room for, and choose the rows of the next step."""
        for request in self.inbox.take():
            try:
                self._waiting.push(self.factory.make(request))
            except SegmentFailed as failure:
                self._answers.append(SegmentFailure(request.segment, failure.code, failure.message))
        while self._free and self._waiting:
            if self.backoff.wants_more():  # what runs is finished first, because growing loses the slots
                if self._running or not self._grow():
                    break
            segment = self._waiting.first()
            room = self._prefixes.acquire(segment.request.voice.key, len(segment.prefix_tokens), segment.own_pages)
            if room is not None:
                self._waiting.pop()
                watch.started(segment.request.segment)
                segment.prefix, segment.pages, is_new = room
                self._admit(segment, read_prefix=is_new)
            elif self._running:
                break
            elif not self._grow():  # fewer slots have fewer pages
                self._waiting.pop()
                self._answers.append(SegmentFailure(segment.request.segment, "out_of_memory", OUT_OF_MEMORY))
        prompts, read = self._reading.take(self.device.prompt_rows)
        self._decoding += read
        return _Plan(list(self._decoding), prompts) if self._decoding or prompts else None

    def _admit(self, segment: Segment, *, read_prefix: bool) -> None:
        """Give a free slot to a segment, and put its prompt on the reading queue; the last token is decoded, not read."""
        assert segment.prefix is not None  # noqa: S101 - for the type checker
        slot = segment.slot = self._free.pop()
        self._running.append(segment)
        text, prefix = segment.text, segment.prefix
        seed, steps = segment.request.seed, segment.limit + 1
        start = SlotStart(
            last=Tokens(text.ids[-1:], text.codes[-1:]),
            position=segment.position,
            prefix=prefix.length,
            prefix_pages=prefix.pages,
            own_pages=segment.pages,
            generation=segment.request.generation,
            noise=torch.rand(steps, DRAWS, generator=torch.Generator().manual_seed(seed)),
        )
        self.device.admit(slot, start)
        if read_prefix:
            self._reading.add(PromptPiece(self.device.set_prefix(slot, prefix.pages), 0, segment.prefix_tokens))
        rest = Tokens(text.ids[:-1], text.codes[:-1])
        self._reading.add(PromptPiece(slot, prefix.length, rest), segment)

    def _run(self, plan: _Plan) -> Statuses:
        rows = StepRows(
            tuple(segment.slot for segment in plan.decode),
            tuple(id(segment.prefix) for segment in plan.decode),
            plan.prompts,
        )
        statuses = self.device.launch(rows)
        self.use.steps += 1
        self.use.slot_steps += self.device.slots
        return statuses

    def _postprocess(self, plan: _Plan, statuses: Statuses) -> None:
        """Give out what a step finished, and free its slots."""
        done = False
        for segment, status in zip(plan.decode, statuses(), strict=True):
            if segment.finished:
                continue  # it was already when this step was launched
            if status == CONTINUES and segment.frames < segment.limit:
                segment.frames += 1
                self.use.frames += 1
                continue
            # A segment with all of its frames has taken one more step, which told whether it would have gone on.
            done = segment.finished = True
            if status == NOT_FINITE:
                message = f"the model's {NOT_NUMBERS}"
                self._answers.append(SegmentFailure(segment.request.segment, "generation_failed", message))
            else:
                codes = self.device.codes(segment.slot, segment.frames)
                self._answers.append(SegmentCodes(segment.request, codes, truncated=status == CONTINUES))
                self.backoff.finished()
            self._release(segment, not_finite=status == NOT_FINITE)
        if done:
            self._decoding = [segment for segment in self._decoding if not segment.finished]
            self._running = [segment for segment in self._running if not segment.finished]

    def _release(self, segment: Segment, *, not_finite: bool) -> None:
        """Free a segment's slot and pages. Those that may hold NaN are cleared, and nobody else gets its prefix."""
        assert segment.prefix is not None  # noqa: S101 - for the type checker
        if not_finite:
            self._prefixes.forget(segment.prefix)
            self.device.clear_pages(segment.pages)
        self.device.clear_pages(self._prefixes.release(segment.prefix))
        self._allocator.release(segment.pages)
        self._free.append(segment.slot)

    def _make_room(self) -> None:
        """Memory ran out: all that runs waits again, for half as many slots. A segment that has the device to itself
        already is given up. Nothing is lost but time: a segment's random numbers are its own."""
        running, slots = self._running, self.backoff.slots
        if slots == 1:
            self.backoff.blame_segment()
            self.device.reset()
            self._empty()
            for segment in running:
                self._answers.append(SegmentFailure(segment.request.segment, "out_of_memory", OUT_OF_MEMORY))
            return
        self._resize(self.backoff.shrink(max(1, slots // 2)))
        for segment in running:
            segment.frames = 0
            self._waiting.push(segment)
        get_logger().warning(f"Out of memory with {slots} slots: going on with {self.backoff.slots}")

    def _grow(self) -> bool:
        """Try twice as many slots, while none runs. False where there is no memory for them, or they are all there."""
        few = self.backoff.slots
        if few == self.backoff.full:
            return False
        more = self.backoff.grow()
        try:
            self._resize(more)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        else:
            get_logger().info(f"There may be memory again: going on with {more} slots instead of {few}")
            return True
        self._resize(self.backoff.shrink(few))
        get_logger().info(f"There is no memory for {more} slots yet: going on with {few}")
        return False

    def _resize(self, slots: int) -> None:
        self.device.resize(slots)
        self._empty()

    def _begin(self, requests: Iterable[SpeechRequest]) -> None:
        if self._running or self._waiting:  # the chunk before was stopped
            self.device.reset()
            self._waiting = WaitingSegments()
            self._answers.clear()
            self._empty()
        self.factory.forget_prefixes()
        self.inbox.open(requests)

    def _empty(self) -> None:
        """No slot runs, and no page is anybody's."""
        self._allocator = PageAllocator(self.device.pages)
        self._prefixes = PrefixCache(self._allocator)
        self._reading = ReadingQueue()
        self._free = list(range(self.device.slots))[::-1]
        self._running: list[Segment] = []
        self._decoding: list[Segment] = []
