"""Messages and manifests that a test then damages, and data that unpacks to more than a worker accepts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

from cloner.batch import Generation, ReferenceKind
from cloner.names import SPEAK_CHUNK
from cloner.protocol.messages import (
    ChunkMessage,
    ChunkRow,
    Manifest,
    ReferenceRow,
    SpeakerRow,
    SpeakerSegments,
    SpeakerSliceRow,
)
from cloner.protocol.packing import MAX_BYTES

DIGEST = "d" * 64


def chunk(**changes: Any) -> dict[str, Any]:
    """A valid message of one segment, with changes."""
    part = SpeakerSegments(
        id="anna",
        reference=ReferenceRow(kind=ReferenceKind.CODES, digest=DIGEST, text="Said."),
        segments=[(0, "One.", "0.wav", 0)],
        position=1,
        texts=1,
    )
    message = ChunkMessage(
        batch_id="hostile",
        number=0,
        assignment=0,
        speakers=1,
        texts=1,
        generation=Generation(),
        slices=[part],
    ).model_dump(mode="json")
    for key in changes.keys() & {"output", "digest", "id", "index"}:
        value: Any = changes.pop(key)
        (part_of,) = message["slices"]
        if key == "id":
            part_of["id"] = value
        elif key == "digest":
            part_of["reference"]["digest"] = value
        else:
            part_of["segments"][0][{"index": 0, "output": 2}[key]] = value
    return message | changes


def manifest(batch_id: str) -> dict[str, Any]:
    """A valid manifest of one segment."""
    reference = ReferenceRow(kind=ReferenceKind.CODES, digest=DIGEST, text="Said.")
    part = SpeakerSliceRow(speaker=0, start=0, stop=1, position=1, texts=1)
    return Manifest(
        batch_id=batch_id,
        source="b.json",
        submitted_at=1.0,
        generation=Generation(),
        speakers=[SpeakerRow(id="anna", reference=reference, segments=[(0, "One.", "0.wav", 0)])],
        chunks=[ChunkRow(number=0, queue="q", assignment=0, speakers=1, texts=1, slices=[part])],
    ).model_dump(mode="json")


def envelope(body: bytes, **changes: object) -> str:
    """A message as Celery stores it in a queue."""
    message = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": SPEAK_CHUNK, "id": "1", "argsrepr": "()", "kwargsrepr": "{}"},
        "properties": {
            "body_encoding": "base64",
            "correlation_id": "1",
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "delivery_mode": 2,
            "delivery_tag": "1",
            "priority": 0,
            "reply_to": "",
        },
    }
    return json.dumps(message | {"body": base64.b64encode(body).decode()} | changes)


def bomb() -> Iterator[bytes]:
    """A few hundred KB that unpack to more than a worker accepts."""
    deflating = zlib.compressobj(9)
    yield from (deflating.compress(bytes(1024**2)) for _ in range(MAX_BYTES // 1024**2 + 8))
    yield deflating.flush()
