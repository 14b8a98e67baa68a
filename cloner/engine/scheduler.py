"""Which segment runs in which slot: continuous batching over the requests of one chunk, longest first.

The loop is three verbs: admit, step, finish. A slot that becomes free is filled at once. When no segment is waiting,
the last running slot moves into it, so that steps get smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch

from cloner.audio import NOT_NUMBERS, check_codes
from cloner.engine.base import NULL_OBSERVER, ChunkObserver, SegmentFailure, SpeechRequest
from cloner.engine.decoder import DRAWS, NOT_FINITE, RUNNING, Decoder, SegmentStart
from cloner.engine.memory import is_out_of_memory
from cloner.engine.prefix_cache import PrefixCache
from cloner.engine.prompt import Prefill, PromptBuilder, Tokens
from cloner.engine.segment import OUT_OF_MEMORY, Segment, SegmentCodes, SlotUsage
from cloner.engine.slot_scaling import SlotScaling
from cloner.engine.step_runner import PendingStatuses, StepRunner
from cloner.errors import SegmentFailed


class Scheduler:
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
        self._slot_positions = decoder.cache.positions
        """Positions of a usual slot. Segments that need more are decoded together in fewer, longer slots."""
        self._waiting: deque[Segment] = deque()
        self._running: list[Segment | None] = []
        """By slot."""
        self._may_hold_nan = False
        """True if a slot's positions may hold NaN, which would reach the next segment there although it is masked."""

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
        """Decode all requests: exactly one result a request. If `observer` stops it, unfinished segments are
        dropped."""
        by_length: dict[int, list[Segment]] = {}
        for request in requests:
            try:
                segment = self._prepare(request)
            except SegmentFailed as failure:
                yield SegmentFailure(request.segment, failure.code, failure.message)
            else:
                by_length.setdefault(self._slot_length(segment), []).append(segment)
        for positions, segments in sorted(by_length.items()):
            yield from self._decode(positions, segments, observer)
        self.prefixes.end_chunk()

    def _prepare(self, request: SpeechRequest) -> Segment:
        check_codes(request.voice.codes)
        text = self.prompts.text(request)
        prefix_tokens = len(self.prefixes.tokens(request.voice))
        prompt = prefix_tokens + len(text)
        self.prompts.check_length(prompt)
        max_frames = min(
            request.generation.max_new_tokens, self.decoder.max_frames, self.decoder.model.positions - prompt
        )
        segment = Segment(request, prefix_tokens, text, max_frames)
        if segment.needed_positions > self.step_runner.initial_positions:
            raise SegmentFailed(
                f"reference, text and max_new_tokens need {segment.needed_positions} positions, and all slots together"
                f" have {self.step_runner.initial_positions}: lower max_new_tokens, or raise FISH_MODEL_MEMORY_GB or"
                " CLONER_SLOTS",
                code="out_of_memory",
            )
        return segment

    def _slot_length(self, segment: Segment) -> int:
        """Positions of the slots that the segment is decoded in: those of a usual slot, doubled until it fits."""
        positions = self._slot_positions
        while positions < segment.needed_positions:
            positions *= 2
        return min(positions, self.decoder.model.positions, self.step_runner.initial_positions)

    def _decode(
        self, positions: int, segments: list[Segment], observer: ChunkObserver
    ) -> Iterator[SegmentCodes | SegmentFailure]:
        """Decode segments in slots of `positions`."""
        cache = self.decoder.cache
        while positions > cache.total_positions and self._scaling.grow():
            pass
        if positions > cache.total_positions:
            yield from (out_of_memory(segment) for segment in segments)
            return
        if cache.positions != positions:
            cache.partition(positions)
        self._waiting = deque(sorted(segments, key=lambda segment: segment.estimated_frames, reverse=True))
        self._running = []
        launched: deque[tuple[list[Segment], PendingStatuses]] = deque()
        while not observer.stopped():
            # Running segments are finished first, since growing loses the slots' contents.
            memory_ran_out, grow = False, bool(self._waiting) and self._scaling.should_grow()
            try:
                running = self._admit(0 if grow else self.step_runner.slots, observer)
                if observer.stopped():  # the prompts of admitted segments may be incomplete
                    return
                if running:
                    launched.append((running, self._step(running)))
                    self.usage.slot_steps += self.step_runner.slots
                elif not launched and not grow:
                    return
                if len(launched) > self.step_runner.pipeline_depth or (launched and not running):
                    yield from self._finish(*launched.popleft())
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

    def _admit(self, slots: int, observer: ChunkObserver) -> list[Segment]:
        """Fill the free slots and return the running segments, which are in the first slots: a step takes a number of
        slots, from the first on."""
        admitted: list[tuple[int, Segment]] = []
        for slot in range(slots):
            if not self._waiting:
                break
            if slot == len(self._running):
                self._running.append(None)
            if self._running[slot] is None:
                segment = self._running[slot] = self._waiting.popleft()
                observer.started(segment.request.segment)
                admitted.append((slot, segment))
        if admitted:
            self._start(admitted, observer)
        while None in self._running:
            last = self._running.pop()
            if last is not None:
                slot = self._running.index(None)
                self.decoder.move(len(self._running), slot, last.position)
                self._running[slot] = last
        return [segment for segment in self._running if segment]

    def _start(self, admitted: list[tuple[int, Segment]], observer: ChunkObserver) -> None:
        """Read the prompts of admitted segments, by slot."""
        texts = []
        for slot, segment in admitted:
            if self._may_hold_nan:
                self.decoder.cache.clear(slot)
            if not self.prefixes.copy_to_slot(segment.request.voice, slot, observer.stopped):
                return
            text = segment.text
            texts.append(Prefill(slot, segment.prefix_tokens, Tokens(text.ids[:-1], text.codes[:-1])))
        # Several texts at once are read faster, but then the last bits of their values depend on each other's lengths.
        for together in [[text] for text in texts] if self.step_runner.deterministic else [texts]:
            if not self.decoder.prefill(together, observer.stopped):
                return
        for slot, segment in admitted:
            text, request = segment.text, segment.request
            segment.position = segment.prefix_tokens + len(text) - 1
            noise = torch.rand(segment.max_frames + 1, DRAWS, generator=torch.Generator().manual_seed(request.seed))
            last = Tokens(text.ids[-1:], text.codes[-1:])
            self.decoder.start(slot, segment.position, SegmentStart(last, request.generation, noise))

    def _step(self, running: list[Segment]) -> PendingStatuses:
        statuses = self.step_runner.step(len(running), max(segment.position for segment in running))
        for segment in running:
            segment.position += 1
        self.usage.steps += 1
        return statuses

    def _finish(self, stepped: list[Segment], statuses: PendingStatuses) -> Iterator[SegmentCodes | SegmentFailure]:
        """Yield the segments that a step finished, and free their slots."""
        for segment, status in zip(stepped, statuses(), strict=True):
            if segment.finished:
                continue  # an earlier step, read after this one was launched, finished it
            if status == RUNNING and segment.frames < segment.max_frames:
                segment.frames += 1
                self.usage.frames += 1
                continue
            # A segment with all of its frames has taken one step more, whose status tells whether it was truncated.
            slot = self._running.index(segment)
            result: SegmentCodes | SegmentFailure
            if status == NOT_FINITE:
                self._may_hold_nan = True
                result = SegmentFailure(segment.request.segment, "generation_failed", f"the model's {NOT_NUMBERS}")
            else:
                codes = self.decoder.generated_codes(slot, segment.frames)
                self._scaling.segment_finished()
                result = SegmentCodes(segment.request, codes, truncated=status == RUNNING)
            self._running[slot] = None
            segment.finished = True
            yield result

    def _preempt(self) -> Iterator[SegmentFailure]:
        """Put all running segments back to waiting, for half as many slots. If there is one slot, its segment fails.

        They start again from their first frame and get the same codes, since their random numbers are their own.
        """
        running = [segment for segment in self._running if segment]
        self._running = []
        self.prefixes.offload()
        if not self._scaling.shrink():
            yield from (out_of_memory(segment) for segment in running)
            return
        for segment in running:
            segment.frames = 0
        self._waiting.extendleft(reversed(running))


def out_of_memory(segment: Segment) -> SegmentFailure:
    """The result of a segment for which the device has no memory."""
    return SegmentFailure(segment.request.segment, "out_of_memory", OUT_OF_MEMORY)
