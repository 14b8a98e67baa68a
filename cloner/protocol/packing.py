"""Values as compressed JSON, as Redis holds them."""

from __future__ import annotations

import zlib
from typing import Self

from pydantic import BaseModel, ValidationError

from cloner.errors import Damaged, UsageError

MAX_BYTES = 256 * 1024**2
"""The longest JSON that is packed or unpacked: a few KB of compressed data could fill a worker's memory."""

MAX_COMMAS = 12_000_000
MAX_BRACKETS = 6_000_000
"""The most commas, and opening brackets and braces, of a JSON, those in texts included: its parser takes 32 bytes for a
value and 130 for a list, which has three bytes. A million segments have a third of them."""


class Packed(BaseModel):
    """A model that can be packed."""

    def pack(self) -> bytes:
        """Compressed JSON. Raises `UsageError` if it is longer than `MAX_BYTES`."""
        data = self.model_dump_json().encode()
        if len(data) > MAX_BYTES:
            raise UsageError(f"the batch is too large ({len(data)} bytes, and {MAX_BYTES} is the most): split it up")
        if _has_too_many_values(data):
            raise UsageError("the batch is too large (too many segments, or too many commas in its texts): split it up")
        return zlib.compress(data, level=1)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The value that `pack` made. Raises `Damaged`."""
        inflating = zlib.decompressobj()
        try:
            text = inflating.decompress(data, MAX_BYTES)
            if not inflating.eof:
                reason = f"it is cut off, or longer than {MAX_BYTES} bytes"
            elif _has_too_many_values(text):
                reason = "it has too many values"
            else:
                return cls.model_validate_json(text)
        except ValidationError as error:
            # Not its text, for which pydantic would make all values that are wrong into Python's.
            reason = f"{error.error_count()} validation errors"
        except (zlib.error, TypeError) as error:
            reason = str(error).splitlines()[0]
        raise Damaged(f"what Redis holds as a {cls.__name__} is damaged, or another version wrote it ({reason})")


def _has_too_many_values(text: bytes) -> bool:
    return text.count(b",") > MAX_COMMAS or text.count(b"[") + text.count(b"{") > MAX_BRACKETS
