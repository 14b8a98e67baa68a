"""The model's prompt: the reference, which all segments of a voice share, then the segment's text."""

from __future__ import annotations

from cloner.engine.base import SpeechRequest, Voice
from cloner.engine.checkpoint import fish
from cloner.engine.tokens import Tokens
from cloner.errors import SegmentFailed

RESERVED_POSITIONS = 2048
"""Positions that upstream's `generate_long` wants free behind a prompt."""


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
