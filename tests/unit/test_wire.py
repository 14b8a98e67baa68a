"""What travels."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from cloner.batch import Generation, ReferenceKind
from cloner.errors import WrongSchema
from cloner.wire import ChunkRow, Manifest, PartRow, ReferenceRow, SpeakerRow, read_chunk, schema_of

REFERENCE = ReferenceRow(kind=ReferenceKind.CODES, digest="d" * 64, text="Hello.")


def manifest() -> Manifest:
    speaker = SpeakerRow(id="anna", reference=REFERENCE, segments=[(n, f"text {n}", f"{n}.wav") for n in range(5)])
    part = PartRow(speaker=0, start=1, stop=3, place=1, texts=5)
    chunk = ChunkRow(number=7, queue="q", assignment=2, speakers=1, texts=5, shared=False, parts=[part])
    return Manifest(
        batch_id="b", source="b.json", submitted_at=1.0, generation=Generation(), speakers=[speaker], chunks=[chunk]
    )


def test_a_manifest_survives_its_way() -> None:
    assert Manifest.unpack(manifest().pack()) == manifest()


def test_a_chunks_message_holds_its_own_segments_and_survives_json() -> None:
    message = manifest().message(manifest().chunks[0])
    assert [part.segments for part in message.parts] == [[(1, "text 1", "1.wav"), (2, "text 2", "2.wav")]]
    assert (message.number, message.assignment, message.total) == (7, 2, 2)
    assert read_chunk(json.loads(json.dumps(message.model_dump(mode="json")))) == message


def test_a_summary_names_speakers_and_counts_and_no_text() -> None:
    summary = manifest().message(manifest().chunks[0]).summary()
    assert summary == "batch b, chunk 7, speakers [anna], 2 texts"


@pytest.mark.parametrize("message", [{}, {"schema_version": "1"}, {"schema_version": True}])
def test_a_message_without_a_version_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(WrongSchema, match="names no schema version"):
        schema_of(message)


def test_a_message_that_is_not_what_its_version_says_is_refused_with_the_place() -> None:
    message = manifest().message(manifest().chunks[0]).model_dump(mode="json")
    message["parts"][0]["reference"]["kind"] = "video"
    with pytest.raises(WrongSchema, match=r"schema version 1: parts\.0\.reference\.kind: "):
        read_chunk(message)


def test_values_do_not_change() -> None:
    with pytest.raises(ValidationError):
        manifest().batch_id = "other"  # type: ignore[misc]
