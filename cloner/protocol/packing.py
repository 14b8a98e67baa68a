"""Values as compressed JSON, as Redis holds them."""

from __future__ import annotations

import zlib
from typing import Self

from pydantic import BaseModel, ValidationError

from cloner.errors import Damaged, UsageError

MAX_BYTES = 256 * 1024**2
"""The longest JSON that is packed or unpacked: a few KB of compressed data could fill a worker's memory."""


class Packed(BaseModel):
    """A model that can be packed."""

    def pack(self) -> bytes:
        """Compressed JSON. Raises `UsageError` if it is longer than `MAX_BYTES`."""
        data = self.model_dump_json().encode()
        if len(data) > MAX_BYTES:
            raise UsageError(f"the batch is too large ({len(data)} bytes, and {MAX_BYTES} is the most): split it up")
        return zlib.compress(data, level=1)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The value that `pack` made. Raises `Damaged`."""
        inflating = zlib.decompressobj()
        try:
            text = inflating.decompress(data, MAX_BYTES)
            if inflating.eof:
                return cls.model_validate_json(text)
            reason = f"it is cut off, or longer than {MAX_BYTES} bytes"
        except (zlib.error, ValidationError, TypeError) as error:
            reason = str(error).splitlines()[0]
        raise Damaged(f"what Redis holds as a {cls.__name__} is damaged, or another version wrote it ({reason})")
