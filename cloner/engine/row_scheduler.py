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
from cloner.engine.kernels.layout import CONTINUES, NOT_FINITE
from cloner.engine.memory import ran_out
from cloner.engine.scheduler import OUT_OF_MEMORY, SegmentCodes, Use
from cloner.engine.segments import Inbox, ReadingQueue, Segment, SegmentFactory, WaitingSegments
from cloner.engine.slot_pool import Placed, SlotPool
from cloner.engine.token_rows import PromptPiece, some
from cloner.errors import SegmentFailed

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
        self.pool = SlotPool(self.device)
        self._waiting, self._reading = WaitingSegments(), ReadingQueue()
        self._running: list[Segment] = []
        self._decoding: list[Segment] = []
        self._answers: deque[Answer] = deque()

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
        while self._waiting and self._admit(self._waiting.first(), watch):
            self._waiting.pop()
        prompts, read = self._reading.take(self.device.prompt_rows)
        self._decoding += read
        return _Plan(list(self._decoding), prompts) if self._decoding or prompts else None

    def _admit(self, segment: Segment, watch: Watch) -> bool:
        """Give a slot and pages to a segment and put its prompt on the reading queue, or answer that it cannot be.
        False if it has to wait."""
        match self.pool.place(segment, idle=not self._running):
            case Placed.LATER:
                return False
            case Placed.NEVER:
                self._fail(segment, "out_of_memory", OUT_OF_MEMORY)
                return True
            case Placed.WITH_NEW_PREFIX:
                owner = self.device.set_prefix(segment.slot, segment.held_prefix.pages)
                self._reading.add(PromptPiece(owner, 0, segment.prefix_tokens))
        watch.started(segment.request.segment)
        self._running.append(segment)
        self.device.admit(segment.slot, segment.start())
        self._reading.add(PromptPiece(segment.slot, segment.held_prefix.length, some(segment.text, slice(-1))), segment)
        return True

    def _run(self, plan: _Plan) -> Statuses:
        rows = StepRows(
            tuple(segment.slot for segment in plan.decode),
            tuple(id(segment.held_prefix) for segment in plan.decode),
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
                self._fail(segment, "generation_failed", f"the model's {NOT_NUMBERS}")
            else:
                codes = self.device.codes(segment.slot, segment.frames)
                self._answers.append(SegmentCodes(segment.request, codes, truncated=status == CONTINUES))
                self.pool.backoff.finished()
            self.pool.release(segment, not_finite=status == NOT_FINITE)
        if done:
            self._decoding = [segment for segment in self._decoding if not segment.finished]
            self._running = [segment for segment in self._running if not segment.finished]

    def _make_room(self) -> None:
        """Memory ran out: all that runs waits again, for half as many slots. A segment that has the device to itself
        already is given up. Nothing is lost but time: a segment's random numbers are its own."""
        running, alone = list(self._running), self.pool.slots == 1
        self._forget_rows()
        self.pool.shrink()
        for segment in running:
            if alone:
                self._fail(segment, "out_of_memory", OUT_OF_MEMORY)
            else:
                segment.frames = 0
                self._waiting.push(segment)

    def _fail(self, segment: Segment, code: str, message: str) -> None:
        self._answers.append(SegmentFailure(segment.request.segment, code, message))

    def _begin(self, requests: Iterable[SpeechRequest]) -> None:
        if self._running or self._waiting:  # the chunk before was stopped
            self.pool.reset()
            self._forget_rows()
            self._waiting = WaitingSegments()
            self._answers.clear()
        self.factory.forget_prefixes()
        self.inbox.open(requests)

    def _forget_rows(self) -> None:
        self._reading.clear()
        self._running.clear()
        self._decoding.clear()
