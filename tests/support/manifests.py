"""A small manifest."""

from __future__ import annotations

from cloner.batch import Generation, ReferenceKind
from cloner.protocol.messages import ChunkRow, Manifest, ReferenceRow, SpeakerRow, SpeakerSliceRow

REFERENCE = ReferenceRow(kind=ReferenceKind.CODES, digest="d" * 64, text="Hello.")


def in_languages() -> Manifest:
    """The same in German, but for the second segment, whose language is not known, and the fourth, in Portuguese."""
    whole = manifest()
    languages = {"language": "de", "other_languages": [(1, ""), (3, "pt-BR")]}
    return whole.model_copy(update={"speakers": [whole.speakers[0].model_copy(update=languages)]})


def manifest() -> Manifest:
    """Five segments of one speaker, of which one chunk has the second and the third."""
    speaker = SpeakerRow(id="anna", reference=REFERENCE, segments=[(n, f"text {n}", f"{n}.wav", n) for n in range(5)])
    row = SpeakerSliceRow(speaker=0, start=1, stop=3, position=1, texts=5)
    chunk = ChunkRow(number=7, queue="q", assignment=2, speakers=1, texts=5, slices=[row])
    return Manifest(
        batch_id="b", source="b.json", submitted_at=1.0, generation=Generation(), speakers=[speaker], chunks=[chunk]
    )
