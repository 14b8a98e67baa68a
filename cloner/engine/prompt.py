"""The model's prompt: the reference, which all segments of a voice share, then the segment's text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cloner.engine import fish
from cloner.engine.base import SpeechRequest, Voice
from cloner.errors import SegmentFailed

RESERVED_POSITIONS = 2048
"""Positions that upstream's `generate_long` wants free behind a prompt."""


@dataclass(frozen=True)
class Tokens:
    """Prompt tokens and, for those that are frames, their codes."""

    ids: Tensor
    """``[tokens]``."""
    codes: Tensor
    """``[tokens, codebooks]``, zero for a token that is no frame."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, rows: Tensor) -> Tokens:
        """From upstream's form, ``[1 + codebooks, tokens]``."""
        return cls(rows[0].long(), rows[1:].T.long())


@dataclass(frozen=True)
class Prefill:
    """Prompt tokens to be read into a slot, from position `start` on."""

    slot: int
    start: int
    tokens: Tokens

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.start + len(self.tokens)


class PromptBuilder:
    """Makes prompts with upstream's tokenizer and in upstream's order."""

    def __init__(self, tokenizer: fish.Tokenizer, positions: int) -> None:
        """`positions` is the model's context length."""
        self._tokenizer = tokenizer
        self._max_tokens = positions - RESERVED_POSITIONS

    def prefix(self, voice: Voice) -> Tokens:
        """The voice's reference and the tokens between it and the text."""
        return Tokens.of(fish.reference_prompt(self._tokenizer, voice.text, voice.codes))

    def text(self, request: SpeechRequest) -> Tokens:
        """The text to be spoken."""
        return Tokens.of(fish.text_prompt(self._tokenizer, request.text))

    def check_length(self, tokens: int) -> None:
        """Raise `SegmentFailed` if a prompt of so many tokens is longer than upstream would accept."""
        if tokens > self._max_tokens:
            raise SegmentFailed(
                f"reference and text together are too long for the model ({tokens} tokens, and {self._max_tokens} are"
                " possible): use a shorter reference, or split the text",
                code="prompt_too_long",
            )
