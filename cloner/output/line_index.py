"""Which outputs and content keys the record of a closed batch is about, so that it is not read again for others.

``OUT/.cloner/BATCH_ID/lines-index.bin`` has hashes of both, of 8 bytes: an opening compares what it wants with those of
all batches, and reads the records that have any of it. It is a cache: without it, the record is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cloner.output.own_folder import OwnFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX = "lines-index.bin"

_TYPE = np.dtype("<u8")

Files = Mapping[str, tuple[int, int]]
"""A record's files: name -> size, and time of the last change, nanoseconds."""


class _Head(BaseModel):
    """The first line; the hashes of the outputs follow, then those of the keys."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, tuple[int, int]]
    """The record's files as they were read."""
    outputs: int
    """Hashes of outputs."""
    checksum: int
    """CRC-32 of all hashes."""


@dataclass(frozen=True)
class LineIndex:
    """Hashes of the outputs and content keys of a record's lines, sorted, each once."""

    outputs: NDArray[np.uint64]
    keys: NDArray[np.uint64]

    def write(self, folder: OwnFolder, files: Files) -> None:
        """Keep it beside the record, whose files were as given before they were read. Where that cannot be done, as on
        a full disk, the record is read again the next time."""
        hashes = self.outputs.tobytes() + self.keys.tobytes()
        head = _Head(files=dict(files), outputs=len(self.outputs), checksum=zlib.crc32(hashes))
        with suppress(OSError):
            folder.write(INDEX, [head.model_dump_json().encode(), b"\n", hashes])


def make_index(lines: Iterable[tuple[bytes, str]]) -> LineIndex:
    """The index of a record's lines; each is given as its output, as the line has it, and its content key."""
    outputs: list[bytes] = []
    keys: list[bytes] = []
    for output, key in lines:
        outputs.append(_hash(output))
        keys.append(_hash(key.encode()))
    return LineIndex(_sorted(outputs), _sorted(keys))


def read_index(folder: OwnFolder, files: Files) -> LineIndex | None:
    """The index of a record whose files are as given; None if there is none of them."""
    try:
        head_line, _, hashes = folder.read(INDEX).partition(b"\n")
        head = _Head.model_validate_json(head_line)
    except (OSError, ValidationError):
        return None
    if head.files != files or zlib.crc32(hashes) != head.checksum:
        return None
    found = np.frombuffer(hashes, _TYPE)
    return LineIndex(found[: head.outputs], found[head.outputs :])


def hashes_of(texts: Iterable[bytes]) -> NDArray[np.uint64]:
    """The hashes of outputs as lines have them, or of keys: sorted, each once."""
    return _sorted(map(_hash, texts))


def have_any(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> bool:
    """Whether any hash is in both; each is sorted."""
    few, many = sorted((some, others), key=len)
    if not len(few):
        return False
    places = np.searchsorted(many, few)
    places[places == len(many)] = 0
    return bool((many[places] == few).any())


def _hash(text: bytes) -> bytes:
    return blake2b(text, digest_size=_TYPE.itemsize).digest()


def _sorted(hashes: Iterable[bytes]) -> NDArray[np.uint64]:
    return np.unique(np.frombuffer(b"".join(hashes), _TYPE))
