"""Continuous batching over the requests of one chunk, longest first, in the slots of one cache.

The loop is three verbs: schedule, run, postprocess. A slot that becomes free is filled at once. When no segment is
waiting, the last running segment moves into it, so that steps get smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch

from cloner.audio import NOT_NUMBERS
from cloner.engine.base import NULL_OBSERVER, ChunkObserver, RequestQueue, SegmentFailure, SpeechRequest
from cloner.engine.memory import is_out_of_memory
from cloner.engine.prompt import PromptBuilder
from cloner.engine.segment_codes import SegmentCodes, SlotUsage
from cloner.engine.slots.decoder import NOT_FINITE, RUNNING, Decoder
from cloner.engine.slots.lengths import WaitingByLength
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.running import RunningSlots
from cloner.engine.slots.scaling import SlotScaling
from cloner.engine.slots.segment import SlotSegment, out_of_memory
from cloner.engine.slots.step_runner import PendingStatuses, StepRunner


class SlotScheduler:
    """Decodes chunks, one after another."""

    def __init__(
        self, decoder: Decoder, step_runner: StepRunner, prompts: PromptBuilder, prefixes: PrefixCache
    ) -> None:
        self.decoder = decoder
        self.step_runner = step_runner
        self.prompts = prompts
        self.prefixes = prefixes
        self.usage = SlotUsage()
        self._scaling = SlotScaling(step_runner, prefixes)
        self.running = RunningSlots(decoder, prefixes, deterministic=step_runner.deterministic)
        self._waiting: deque[SlotSegment] = deque()
        """Those of the slots' length at present."""
        self._others = WaitingByLength(decoder, step_runner, prompts, prefixes)

    @property
    def slots(self) -> int:
        """Slots of the usual length: fewer after memory ran out."""
        return self.step_runner.current_slots

    @property
    def cache_bytes(self) -> int:
        """Memory of the slots and of the references that were read."""
        return self.decoder.cache.nbytes + self.prefixes.capacity_bytes

    @property
    def steps(self) -> int:
        """Steps taken and references read."""
        return self.usage.steps + self.prefixes.computed

    @torch.inference_mode()
    def run(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Iterator[SegmentCodes | SegmentFailure]:
        """Decode all requests, and those that are added to a `RequestQueue` meanwhile: exactly one result a request.
        If `observer` stops it, unfinished segments are dropped."""
        queue = RequestQueue.of(requests)
        self._others.clear()
        yield from self._others.add(queue.first)
        while not observer.stopped():
            if self._others:
                yield from self._decode(*self._others.take_shortest(), queue, observer)
            elif queue.wait():
                yield from self._others.add(queue.take())
            else:
                break
        self.prefixes.end_chunk()

    def _decode(
        self, positions: int, segments: list[SlotSegment], queue: RequestQueue, observer: ChunkObserver
    ) -> Iterator[SegmentCodes | SegmentFailure]:
        """Decode segments in slots of `positions`, and those that are added for such slots meanwhile."""
        if not self._make_slots(positions):
            yield from (out_of_memory(segment) for segment in segments)
            return
        self._waiting = deque(sorted(segments, key=lambda segment: segment.request.estimated_frames, reverse=True))
        self.running.remove_all()
        launched: deque[tuple[list[SlotSegment], PendingStatuses]] = deque()
        while not observer.stopped():
            if added := queue.take():
                yield from self._others.add(added)
                self._waiting.extendleft(self._others.take(positions))
            # Running segments are finished first, since growing loses the slots' contents.
            memory_ran_out, grow = False, bool(self._waiting) and self._scaling.should_grow()
            try:
                running = self._schedule(observer, grow=grow)
                if observer.stopped():  # the prompts of admitted segments may be incomplete
                    return
                if running:
                    launched.append((running, self._run(running)))
                elif not launched and not grow:
                    return
                if len(launched) > self.step_runner.pipeline_depth or (launched and not running):
                    yield from self._postprocess(*launched.popleft())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                memory_ran_out = True
            # Not in the handler: the exception's frames hold references to the memory that is to be released.
            if memory_ran_out:
                launched.clear()
                yield from self._preempt()
            elif grow and not running and not launched:
                self._scaling.grow()

    def _make_slots(self, positions: int) -> bool:
        """Divide the cache into slots of `positions`. Returns False if it has no memory for one."""
        cache = self.decoder.cache
        while positions > cache.total_positions and self._scaling.grow():
            pass
        if positions > cache.total_positions:
            return False
        if cache.positions != positions:
            cache.partition(positions)
        return True

    def _schedule(self, observer: ChunkObserver, *, grow: bool) -> list[SlotSegment]:
        """The segments of the next step, in the order of their slots; none is added if the slots are to `grow`."""
        return self.running.fill(self._waiting, 0 if grow else self.step_runner.slots, observer)

    def _run(self, running: list[SlotSegment]) -> PendingStatuses:
        statuses = self.step_runner.step(len(running), max(segment.position for segment in running))
        for segment in running:
            segment.position += 1
        self.usage.steps += 1
        self.usage.slot_steps += self.step_runner.slots
        return statuses

    def _postprocess(
        self, stepped: list[SlotSegment], statuses: PendingStatuses
    ) -> Iterator[SegmentCodes | SegmentFailure]:
        """Yield the segments that a step finished, and free their slots."""
        for segment, status in zip(stepped, statuses(), strict=True):
            if segment.finished:
                continue  # an earlier step, read after this one was launched, finished it
            if status == RUNNING and segment.frames < segment.max_frames:
                segment.frames += 1
                self.usage.frames += 1
                continue
            # A segment with all of its frames has taken one step more, whose status tells whether it was truncated.
            result: SegmentCodes | SegmentFailure
            if status == NOT_FINITE:
                result = SegmentFailure(segment.request.segment, "generation_failed", f"the model's {NOT_NUMBERS}")
            else:
                codes = self.decoder.generated_codes(self.running.segments.index(segment), segment.frames)
                self._scaling.segment_finished()
                result = SegmentCodes(segment.request, codes, truncated=status == RUNNING)
            self.running.remove(segment, not_finite=status == NOT_FINITE)
            segment.finished = True
            yield result

    def _preempt(self) -> Iterator[SegmentFailure]:
        """Put all running segments back to waiting, for half as many slots. If there is one slot, its segment fails.

        They start again from their first frame and get the same codes, since their random numbers are their own.
        """
        running = self.running.remove_all()
        self.prefixes.offload()
        if not self._scaling.shrink():
            yield from (out_of_memory(segment) for segment in running)
            return
        for segment in running:
            segment.frames = 0
        self._waiting.extendleft(reversed(running))
