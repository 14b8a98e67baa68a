"""What the model reads before it speaks: the reference, which all segments of a voice share, then the text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cloner.engine import fish
from cloner.engine.base import SpeechRequest, Voice
from cloner.errors import SegmentFailed

ROOM = 2048
"""Positions that upstream's `generate_long` wants left behind a prompt."""


@dataclass(frozen=True)
class Tokens:
    """Prompt tokens and, where they are frames, their codes."""

    ids: Tensor
    """``[tokens]``."""
    codes: Tensor
    """``[tokens, codebooks]``, zero where a token is no frame."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, rows: Tensor) -> Tokens:
        """From upstream's form, ``[1 + codebooks, tokens]``."""
        return cls(rows[0].long(), rows[1:].T.long())


class Prompts:
    """Makes prompts with upstream's tokenizer and in upstream's order."""

    def __init__(self, tokenizer: fish.Tokenizer, positions: int) -> None:
        self._tokenizer = tokenizer
        self._longest = positions - ROOM

    def prefix(self, voice: Voice) -> Tokens:
        """The voice's reference and what leads over to the text."""
        return Tokens.of(fish.reference_prompt(self._tokenizer, voice.text, voice.codes))

    def text(self, line: SpeechRequest) -> Tokens:
        """The text to be spoken."""
        return Tokens.of(fish.text_prompt(self._tokenizer, line.text))

    def check(self, tokens: int) -> None:
        """Raise `SegmentFailed` if a prompt of that many tokens is longer than upstream would take."""
        if tokens > self._longest:
            raise SegmentFailed(
                f"reference and text together are too long for the model ({tokens} tokens, and {self._longest} are"
                " possible): use a shorter reference, or split the text",
                code="prompt_too_long",
            )
