"""Values that lie in Redis whole, as compressed JSON."""

from __future__ import annotations

import zlib
from typing import Self

from pydantic import BaseModel


class Packed(BaseModel):
    """A model that can be packed."""

    def pack(self) -> bytes:
        """Compressed JSON."""
        return zlib.compress(self.model_dump_json().encode(), level=1)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The value that `pack` made."""
        return cls.model_validate_json(zlib.decompress(data))
