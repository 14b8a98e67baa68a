"""Content keys: what a segment's audio follows from, in one hash. Nowhere else are they made.

What a checkpoint holds, in a few letters: so that a segment is spoken again where the model is another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cloner.batch import Generation
from cloner.protocol.messages import ReferenceRow, SegmentRow, SpeakerRow


class Keys:
    """Makes the content keys of one batch's segments, for one engine and one checkpoint.

    Two keys are equal exactly where the same audio would be generated: text, reference, parameters, engine and
    checkpoint are the same, and so is the segment's index, from which its seed follows. Neither the speaker's name nor
    the file's is part of it.
    """

    def __init__(self, generation: Generation, engine: str, fingerprint: str) -> None:
        """`engine` by its name in settings and registry; `fingerprint` as `fingerprint.py` makes it."""
        common = [generation.model_dump(mode="json"), engine, fingerprint]
        self._common = hashlib.sha256(json.dumps(common).encode())

    def of(self, reference: ReferenceRow, segment: SegmentRow) -> str:
        """The segment's key, 64 hexadecimal digits."""
        index, text, _ = segment
        key = self._common.copy()
        key.update(json.dumps([reference.kind, reference.digest, reference.text, index, text]).encode())
        return key.hexdigest()


def wanted_outputs(rows: Iterable[SpeakerRow], generation: Generation, engine: str, fingerprint: str) -> dict[str, str]:
    """Output -> content key, of all segments of some speakers."""
    keys = Keys(generation, engine, fingerprint)
    return {row[2]: keys.of(speaker.reference, row) for speaker in rows for row in speaker.segments}


FILES = ("config.json", "model.pth", "tokenizer.tiktoken", "special_tokens.json", "codec.pth", "codec.json")
"""The files of a checkpoint from which its speech follows (`engine/checkpoint.py`)."""

NONE = "none"
"""The fingerprint of no checkpoint at all."""

BLOCK = 65_536
BLOCKS = 64
"""Bytes, and how many blocks of them, that are read of a file that is bigger than all of them together."""


def fingerprint(directory: Path) -> str:
    """A name for what is in a checkpoint folder, 32 hexadecimal digits; `NONE` where it has none of the files.

    Small files are read whole. Weights are known by their size, their first and last block and more spread over the
    file: 4 MiB of 3.6 GB, so that it takes milliseconds. That is enough to tell checkpoints apart: training moves all
    weights, another architecture has another size, and the last block of a ``.pth`` is the directory of a zip file,
    with a checksum of every tensor. It is no protection against somebody who wants two to look alike.
    """
    whole = hashlib.sha256()
    found = False
    for name in FILES:
        path = directory / name
        if not path.is_file():
            continue  # a pipe would be waited for, a device has no end
        try:
            status = path.stat()
            part = _sampled(path.resolve(), status.st_size, status.st_mtime_ns)
        except OSError:
            continue  # not there, or not to be read: the engine will say so when it loads
        whole.update(name.encode() + part)
        found = True
    return whole.hexdigest()[:32] if found else NONE


@cache
def _sampled(path: Path, size: int, _changed_ns: int) -> bytes:
    """A hash of the file as it was at that time: a launcher asks once a worker."""
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            digest.update(file.read())
        else:
            for number in range(BLOCKS):
                file.seek((size - BLOCK) * number // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.digest()
