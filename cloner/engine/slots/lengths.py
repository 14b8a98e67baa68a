"""Which slots a segment needs: requests become segments, and wait by the length of their slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloner.audio import check_codes
from cloner.engine.base import SegmentFailure, SpeechRequest
from cloner.engine.prompt import PromptBuilder
from cloner.engine.slots.decoder import Decoder
from cloner.engine.slots.prefix_cache import PrefixCache
from cloner.engine.slots.segment import SlotSegment
from cloner.engine.slots.step_runner import StepRunner
from cloner.errors import SegmentFailed


class WaitingByLength:
    """Segments that wait for slots of their length. Those that need more positions than a usual slot has are decoded
    together in fewer, longer slots."""

    def __init__(
        self, decoder: Decoder, step_runner: StepRunner, prompts: PromptBuilder, prefixes: PrefixCache
    ) -> None:
        self._decoder = decoder
        self._slot_positions = decoder.cache.positions
        """Positions of a usual slot."""
        self._all_positions = step_runner.initial_positions
        self._prompts = prompts
        self._prefixes = prefixes
        self._waiting: dict[int, list[SlotSegment]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, requests: Iterable[SpeechRequest]) -> Iterator[SegmentFailure]:
        """Let requests wait. Yields the failures of those that cannot be spoken."""
        for request in requests:
            try:
                segment = self._make(request)
            except SegmentFailed as failure:
                yield SegmentFailure(request.segment, failure.code, failure.message)
            else:
                self._waiting.setdefault(self._slot_length(segment), []).append(segment)

    def take_shortest(self) -> tuple[int, list[SlotSegment]]:
        """The positions of the shortest slots that are waited for, and the segments that wait for them."""
        positions = min(self._waiting)
        return positions, self.take(positions)

    def take(self, positions: int) -> list[SlotSegment]:
        """The segments that wait for slots of this length."""
        return self._waiting.pop(positions, [])

    def clear(self) -> None:
        """Drop all segments."""
        self._waiting.clear()

    def _make(self, request: SpeechRequest) -> SlotSegment:
        check_codes(request.voice.codes)
        text = self._prompts.text(request)
        prefix_tokens = len(self._prefixes.tokens(request.voice))
        prompt = prefix_tokens + len(text)
        self._prompts.check_length(prompt)
        max_frames = min(
            request.generation.max_new_tokens, self._decoder.max_frames, self._decoder.model.positions - prompt
        )
        segment = SlotSegment(request, prefix_tokens, text, max_frames)
        if segment.needed_positions > self._all_positions:
            raise SegmentFailed(
                f"reference, text and max_new_tokens need {segment.needed_positions} positions, and all slots together"
                f" have {self._all_positions}: lower max_new_tokens, or raise FISH_MODEL_MEMORY_GB or CLONER_SLOTS",
                code="out_of_memory",
            )
        return segment

    def _slot_length(self, segment: SlotSegment) -> int:
        """Positions of the slots that the segment is decoded in: those of a usual slot, doubled until it fits."""
        positions = self._slot_positions
        while positions < segment.needed_positions:
            positions *= 2
        return min(positions, self._decoder.model.positions, self._all_positions)
