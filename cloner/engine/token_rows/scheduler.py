"""Continuous batching over token rows: which segment runs in which slot, and which prompts are read beside them.

The loop is three verbs: schedule, run, postprocess. A free slot is given at once to the longest segment that waits, if
the cache has the pages that it may need; its prompt is read as rows of the next steps. A step is launched before the
results of the one before are read, so that the device never waits for the host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch

from cloner.audio import NOT_NUMBERS
from cloner.engine.base import NULL_OBSERVER, ChunkObserver, RequestQueue, SegmentFailure, SpeechRequest
from cloner.engine.kernels.step.layout import CONTINUES, NOT_FINITE
from cloner.engine.memory import is_out_of_memory
from cloner.engine.segment_codes import OUT_OF_MEMORY, SegmentCodes, SlotUsage
from cloner.engine.token_rows.admission import AdmissionPause
from cloner.engine.token_rows.device import Statuses, StepDevice
from cloner.engine.token_rows.rows import PromptPiece, some
from cloner.engine.token_rows.segments import ReadingQueue, RowSegment, SegmentFactory, WaitingSegments
from cloner.engine.token_rows.slot_pool import Placed, SlotPool
from cloner.engine.token_rows.steps import Decoding, Step

Answer = SegmentCodes | SegmentFailure


class RowScheduler:
    """Generates the codes of chunks, one chunk after another."""

    def __init__(self, device: StepDevice, factory: SegmentFactory) -> None:
        self.device = device
        self.factory = factory
        self.usage = SlotUsage()
        self.pool = SlotPool(device)
        self._pause = AdmissionPause()
        self._waiting, self._reading = WaitingSegments(factory), ReadingQueue()
        self._running: list[RowSegment] = []
        """Those that have a slot, whether they are decoded or still read."""
        self._decoded: list[RowSegment] = []
        """Those of the running whose prompts are read; a new list whenever they change."""
        self._decoding = Decoding.of(self._decoded)
        self._answers: deque[Answer] = deque()

    @property
    def slots(self) -> int:
        """Slots at present: fewer after memory ran out."""
        return self.pool.slots

    @property
    def cache_bytes(self) -> int:
        """Memory of the pages."""
        return self.device.cache_bytes

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.usage.steps

    @torch.inference_mode()
    def run(self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER) -> Iterator[Answer]:
        """Generate all requests, and those that are added to a `RequestQueue` meanwhile; exactly one answer each. If
        `observer` stops it, unfinished segments are dropped."""
        queue = RequestQueue.of(requests)
        self._begin(queue)
        launched: deque[tuple[Step, Statuses]] = deque()
        while not observer.stopped():
            step, out_of_memory = None, False
            try:
                step = self._schedule(queue, observer)
                if step:
                    launched.append((step, self._run(step)))
                    self._waiting.make_some()
                if len(launched) > self.device.pipeline_depth or (launched and not step):
                    self._postprocess(*launched.popleft())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                out_of_memory = True
            if out_of_memory:  # not in the handler: the exception's frames hold on to the memory
                launched.clear()
                self._make_room()
            while self._answers:
                yield self._answers.popleft()
            if not (step or launched or self._running or self._waiting) and not queue.wait():
                break

    def _schedule(self, queue: RequestQueue, observer: ChunkObserver) -> Step | None:
        """Admit what there is room for, and choose the rows of the next step."""
        for request in queue.take():
            self._waiting.push(request, late=True)
        if self._reading.rows or self._pause.is_over(self.pool.free, self.pool.slots):
            # A prompt that could not be read in this step would keep a slot idle, and the device waiting for the host.
            while self._reading.rows < self.device.prompt_rows and (segment := self._waiting.first()):
                if not self._admit(segment, observer):
                    break
                self._pause.begin()
        self._answers += self._waiting.failures
        self._waiting.failures.clear()
        prompts, read = self._reading.take(self.device.prompt_rows)
        if read:
            for segment in read:
                segment.first_step = self.usage.steps
            self._decoded = self._decoded + read
        if self._decoding.segments is not self._decoded:
            self._decoding = Decoding.of(self._decoded)
        return Step(self.usage.steps, self._decoding, prompts) if self._decoding.segments or prompts else None

    def _admit(self, segment: RowSegment, observer: ChunkObserver) -> bool:
        """Give a slot and pages to the first segment that waits and put its prompt on the reading queue, or answer that
        it cannot be; or drop it. False if it has to wait."""
        if observer.dropped(segment.request.segment):
            self._waiting.pop()
            return True
        placed = self.pool.place(segment, idle=not self._running)
        if placed is Placed.LATER:
            return False
        self._waiting.pop()
        if placed is Placed.NEVER:
            self._fail(segment, "out_of_memory", OUT_OF_MEMORY)
            return True
        # It runs before the device hears of it: where memory runs out below, it waits again, or is given up, once.
        self._running.append(segment)
        observer.started(segment.request.segment)
        if placed is Placed.WITH_NEW_PREFIX:
            owner = self.device.set_prefix(segment.slot, segment.held_prefix.pages)
            self._reading.add(PromptPiece(owner, 0, segment.prefix_tokens))
        self.device.admit(segment.slot, segment.start())
        self._reading.add(PromptPiece(segment.slot, segment.held_prefix.length, some(segment.text, slice(-1))), segment)
        return True

    def _run(self, step: Step) -> Statuses:
        statuses = self.device.launch(step.rows)
        self.usage.steps += 1
        self.usage.slot_steps += self.device.slots
        return statuses

    def _postprocess(self, step: Step, statuses: Statuses) -> None:
        """Answer for the segments that a step finished, and free their slots."""
        values = statuses()
        if step.number < step.decoding.first_limit and not any(values):
            return  # most steps finish none
        for segment, status in zip(step.decoding.segments, values, strict=True):
            frames = step.number - segment.first_step
            if segment.finished or (status == CONTINUES and frames < segment.limit):
                continue  # a step was launched already when the one before it finished the segment
            # A segment with all of its frames has taken one more step, which told whether it would have gone on.
            if status == NOT_FINITE:
                self._fail(segment, "generation_failed", f"the model's {NOT_NUMBERS}")
            else:
                # It runs until its codes are copied: where memory runs out for the copy, it waits again.
                codes = self.device.codes(segment.slot, frames)
                self._answers.append(SegmentCodes(segment.request, codes, truncated=status == CONTINUES))
                self.pool.backoff.finished()
            segment.finished = True
            self.usage.frames += frames
            self.pool.release(segment, not_finite=status == NOT_FINITE)
        self._running = [segment for segment in self._running if not segment.finished]
        self._decoded = [segment for segment in self._decoded if not segment.finished]

    def _make_room(self) -> None:
        """Memory ran out: all that runs and has no answer yet waits again, for half as many slots. A segment that has
        the device to itself already is given up. Nothing is lost but time: a segment's random numbers are its own."""
        running, alone = [segment for segment in self._running if not segment.finished], self.pool.slots == 1
        self._forget_rows()
        self.pool.shrink()
        for segment in running:
            if alone:
                self._fail(segment, "out_of_memory", OUT_OF_MEMORY)
            else:
                self._waiting.push_back(segment)

    def _fail(self, segment: RowSegment, code: str, message: str) -> None:
        self._answers.append(SegmentFailure(segment.request.segment, code, message))

    def _begin(self, queue: RequestQueue) -> None:
        if self._running or self._waiting:  # the chunk before was stopped
            self.pool.reset()
            self._forget_rows()
            self._answers.clear()
        self._waiting = WaitingSegments(self.factory)
        self.factory.forget_prefixes()
        for request in queue.first:
            self._waiting.push(request)

    def _forget_rows(self) -> None:
        self._reading.clear()
        self._running.clear()
        self._decoded = []
