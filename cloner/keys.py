"""Content keys: what a segment's audio follows from, in one hash. Nowhere else are they made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from cloner.batch import Generation
from cloner.wire import ReferenceRow, SegmentRow, SpeakerRow


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
