"""What the scheduler over token rows asks of one step."""

from __future__ import annotations

from dataclasses import dataclass

from cloner.engine.token_rows.device import StepRows
from cloner.engine.token_rows.paged_cache import Prefix
from cloner.engine.token_rows.rows import PromptPiece
from cloner.engine.token_rows.segments import RowSegment


@dataclass(frozen=True)
class Decoding:
    """The segments that are decoded, with their slots and voices for the device. The first of them to reach its limit
    does so in step `first_limit`."""

    segments: list[RowSegment]
    slots: tuple[int, ...]
    voices: tuple[Prefix | None, ...]
    first_limit: int

    @classmethod
    def of(cls, segments: list[RowSegment]) -> Decoding:
        return cls(
            segments,
            tuple([segment.slot for segment in segments]),
            tuple([segment.prefix for segment in segments]),
            min([segment.first_step + segment.limit for segment in segments], default=0),
        )


@dataclass(frozen=True)
class Step:
    """What is decoded, and what is read beside it."""

    number: int
    decoding: Decoding
    prompts: list[PromptPiece]

    @property
    def rows(self) -> StepRows:
        """The same for the device."""
        return StepRows(self.decoding.slots, self.decoding.voices, self.prompts)
