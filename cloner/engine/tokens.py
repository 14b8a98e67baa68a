"""Tokens of prompts. Kernels are tried in processes that need these, and not the tokenizer with all that it imports."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
