"""Which segment speaks in which slot: continuous batching over the lines of one chunk, longest first.

The loop is three verbs: admit, step, finish. A slot that becomes free is filled at once; when nothing waits any more,
the last running slot moves into it, so that the steps get smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cloner.audio import FRAMES_PER_CHARACTER, NOT_NUMBERS, check_codes
from cloner.engine.base import UNWATCHED, SegmentFailure, SpeechRequest, Watch
from cloner.engine.decoder import BROKEN, DRAWS, GOES_ON, Decoder, Start
from cloner.engine.memory import ran_out
from cloner.engine.prefix_cache import PrefixCache
from cloner.engine.prompt import Prompts, Tokens
from cloner.engine.stepper import Statuses, Stepper
from cloner.errors import SegmentFailed
from cloner.events import Event
from cloner.logs import log_event

OUT_OF_MEMORY = (
    "the device's memory ran out: use a shorter reference, split the text, or start fewer workers on the device"
)


ROUNDS, MOST_ROUNDS = 2, 64
"""Where memory ran out, twice the slots are tried when so many segments for each slot are finished. Each time that it
runs out again, it takes twice as many, up to the second figure."""


@dataclass(frozen=True)
class SegmentCodes:
    """A finished segment's codes ``[codebooks, frames]``, on the device; `truncated` if it did not end by itself."""

    line: SpeechRequest
    codes: Tensor
    truncated: bool


@dataclass
class Use:
    """How well the slots were used."""

    steps: int = 0
    frames: int = 0
    slot_steps: int = 0

    @property
    def occupancy(self) -> float:
        """Frames over what all slots could have spoken in the same steps."""
        return self.frames / self.slot_steps if self.slot_steps else 0.0


@dataclass(eq=False)
class _Segment:
    """A line on its way: `limit` is how many frames it may have, `position` where its next token goes."""

    line: SpeechRequest
    prefix: int
    text: Tokens
    limit: int
    position: int = 0
    frames: int = 0
    finished: bool = False

    @property
    def room(self) -> int:
        """Positions that it takes in a slot."""
        return self.prefix + len(self.text) + self.limit

    @property
    def guess(self) -> int:
        """Frames that it will probably have."""
        return min(round(len(self.line.text) * FRAMES_PER_CHARACTER), self.limit)


@dataclass
class Scheduler:
    """Speaks chunks, one after another."""

    decoder: Decoder
    stepper: Stepper
    prompts: Prompts
    prefixes: PrefixCache
    slot_positions: int
    """Positions of a usual slot. A segment that needs more is spoken with others of its kind in fewer, longer slots."""
    longest_frames: int
    deterministic: bool
    use: Use = field(default_factory=Use)
    _tainted: bool = False
    """Some slot may hold NaN, which would spread to the next segment there, even from masked positions."""
    _rounds: int = ROUNDS
    _finished: int = 0
    """Segments since the number of slots was changed last."""
    _full_room: int = field(init=False)

    def __post_init__(self) -> None:
        self._full_room = self.prefixes.room

    @torch.inference_mode()
    def run(self, lines: Iterable[SpeechRequest], watch: Watch = UNWATCHED) -> Iterator[SegmentCodes | SegmentFailure]:
        """Speak all lines; exactly one answer a line, unless it is stopped: then what is not finished is dropped."""
        kinds: dict[int, list[_Segment]] = {}
        for line in lines:
            try:
                segment = self._prepared(line)
            except SegmentFailed as failure:
                yield SegmentFailure(line.segment, failure.code, failure.message)
            else:
                kinds.setdefault(self._kind(segment), []).append(segment)
        for positions, segments in sorted(kinds.items()):
            yield from self._speak(positions, segments, watch)
        self.prefixes.shrink()

    def _prepared(self, line: SpeechRequest) -> _Segment:
        check_codes(line.voice.codes)
        text = self.prompts.text(line)
        prefix = self.prefixes.tokens(line.voice)
        prompt = len(prefix) + len(text)
        self.prompts.check(prompt)
        limit = min(line.generation.max_new_tokens, self.longest_frames, self.decoder.model.positions - prompt)
        segment = _Segment(line, len(prefix), text, limit)
        if segment.room > self.stepper.full_positions:
            raise SegmentFailed(
                f"reference, text and max_new_tokens need {segment.room} positions, and all slots together have"
                f" {self.stepper.full_positions}: lower max_new_tokens, or raise FISH_MODEL_MEMORY_GB or"
                " CLONER_SLOTS",
                code="out_of_memory",
            )
        return segment

    def _kind(self, segment: _Segment) -> int:
        """Positions of the slots that the segment is spoken in: usual ones doubled until it fits."""
        positions = self.slot_positions
        while positions < segment.room:
            positions *= 2
        return min(positions, self.decoder.model.positions, self.stepper.full_positions)

    def _speak(self, positions: int, segments: list[_Segment], watch: Watch) -> Iterator[SegmentCodes | SegmentFailure]:
        while positions > self.decoder.cache.total_positions and self._grow():
            pass
        if positions > self.decoder.cache.total_positions:
            yield from (SegmentFailure(segment.line.segment, "out_of_memory", OUT_OF_MEMORY) for segment in segments)
            return
        if self.decoder.cache.positions != positions:
            self.decoder.cache.shape(positions)
        self._waiting = deque(sorted(segments, key=lambda segment: segment.guess, reverse=True))
        self._running: list[_Segment | None] = []
        launched: deque[tuple[list[_Segment], Statuses]] = deque()
        while not watch.stopped():
            full, grow = False, self._wants_to_grow()
            try:
                running = self._admit(0 if grow else self.stepper.slots, watch)
                if watch.stopped():  # what was admitted may not be read
                    return
                if running:
                    launched.append((running, self._step(running)))
                    self.use.slot_steps += self.stepper.slots
                elif not launched and not grow:
                    return
                if len(launched) > self.stepper.lag or (launched and not running):
                    yield from self._finish(*launched.popleft())
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                full = True
            # Out here, for the error holds on to what its frames looked at, which is the memory to be given back.
            if full:
                launched.clear()
                yield from self._make_room()
            elif grow and not running and not launched:
                self._grow()

    def _admit(self, slots: int, watch: Watch) -> list[_Segment]:
        """Fill the free slots and give what runs now; without gaps, for a step takes the first so many slots."""
        fills: list[tuple[int, _Segment]] = []
        for slot in range(slots):
            if not self._waiting:
                break
            if slot == len(self._running):
                self._running.append(None)
            if self._running[slot] is None:
                segment = self._running[slot] = self._waiting.popleft()
                watch.started(segment.line.segment)
                fills.append((slot, segment))
        if fills:
            self._start(fills, watch)
        while None in self._running:
            last = self._running.pop()
            if last is not None:
                slot = self._running.index(None)
                self.decoder.move(len(self._running), slot, last.position)
                self._running[slot] = last
        return [segment for segment in self._running if segment]

    def _make_room(self) -> Iterator[SegmentFailure]:
        """Memory ran out: all that runs waits again, for half as many slots. A segment that has the device to itself
        already is given up. Nothing is lost but time: a segment's random numbers are its own."""
        running = [segment for segment in self._running if segment]
        self._running = []
        self.prefixes.make_room()
        slots = self.stepper.slots
        if slots == 1:
            self._rounds = ROUNDS  # it was this one's fault, and need not be so with the others
            for segment in running:
                yield SegmentFailure(segment.line.segment, "out_of_memory", OUT_OF_MEMORY)
            return
        for segment in running:
            segment.frames = 0
        self._waiting.extendleft(reversed(running))
        self._rounds = min(2 * self._rounds, MOST_ROUNDS)
        self._resize(max(1, self.stepper.most_slots // 2))
        log_event(Event.OUT_OF_MEMORY, slots=slots, fewer=self.stepper.slots)

    def _wants_to_grow(self) -> bool:
        """Whether it is time to try more slots. What runs is finished first, for its slots are lost then."""
        few = self.stepper.most_slots
        return bool(self._waiting) and few < self.stepper.full_slots and self._finished >= self._rounds * few

    def _grow(self) -> bool:
        """Try twice as many slots, while none runs. False where there is no memory for them, or they are all there."""
        few = self.stepper.most_slots
        more = min(2 * few, self.stepper.full_slots)
        if more == few:
            return False
        try:
            self._resize(more)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        else:
            log_event(Event.MEMORY_AGAIN, slots=more, before=few)
            return True
        self._rounds = min(2 * self._rounds, MOST_ROUNDS)
        self._resize(few)
        log_event(Event.NO_MEMORY_YET, slots=more, fewer=few)
        return False

    def _resize(self, slots: int) -> None:
        self._finished = 0
        self.stepper.resize(slots)
        self.prefixes.room = self._full_room * slots // self.stepper.full_slots

    def _start(self, fills: list[tuple[int, _Segment]], watch: Watch) -> None:
        reads = []
        for slot, segment in fills:
            if self._tainted:
                self.decoder.cache.clear(slot)
            if not self.prefixes.put(segment.line.voice, slot, watch.stopped):
                return
            text = segment.text
            reads.append((slot, segment.prefix, Tokens(text.ids[:-1], text.codes[:-1])))
        # Several texts at once are read faster, but their figures depend on each other's lengths in the last bits.
        for together in [[read] for read in reads] if self.deterministic else [reads]:
            if not self.decoder.fill(together, watch.stopped):
                return
        for slot, segment in fills:
            text, line = segment.text, segment.line
            segment.position = segment.prefix + len(text) - 1
            noise = torch.rand(segment.limit + 1, DRAWS, generator=torch.Generator().manual_seed(line.seed))
            last = Tokens(text.ids[-1:], text.codes[-1:])
            self.decoder.start(slot, segment.position, Start(last, line.generation, noise))

    def _step(self, running: list[_Segment]) -> Statuses:
        statuses = self.stepper.step(len(running), max(segment.position for segment in running))
        for segment in running:
            segment.position += 1
        self.use.steps += 1
        return statuses

    def _finish(self, stepped: list[_Segment], statuses: Statuses) -> Iterator[SegmentCodes | SegmentFailure]:
        """Give out what a step finished and free its slots."""
        for segment, status in zip(stepped, statuses(), strict=True):
            if segment.finished:
                continue  # it was already when this step was launched
            if status == GOES_ON and segment.frames < segment.limit:
                segment.frames += 1
                self.use.frames += 1
                continue
            # A segment with all of its frames has taken one more step, which told whether it would have gone on.
            slot = self._running.index(segment)
            answer: SegmentCodes | SegmentFailure
            if status == BROKEN:
                self._tainted = True
                answer = SegmentFailure(segment.line.segment, "generation_failed", f"the model's {NOT_NUMBERS}")
            else:
                codes = self.decoder.take(slot, segment.frames)
                self._finished += 1
                answer = SegmentCodes(segment.line, codes, truncated=status == GOES_ON)
            self._running[slot] = None
            segment.finished = True
            yield answer
