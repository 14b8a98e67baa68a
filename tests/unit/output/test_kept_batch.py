"""A batch and its references, kept beside the record."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cloner.batch import ReferenceKind
from cloner.errors import Damaged
from cloner.output import kept_references
from cloner.output.kept_batch import BATCH, KeptBatch, read_part
from cloner.output.kept_references import TOGETHER, KeptReferences
from cloner.output.record import Record, batch_folder
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from cloner.protocol.queries import PartRequest
from cloner.protocol.references import reference_key
from tests.support.edited_batches import Killed
from tests.support.manifests import REFERENCE, in_languages, manifest


def two_speakers() -> Manifest:
    """Segments 0 to 4 of anna, of which 3 has an id, and 9 of ben."""
    ben = SpeakerRow(id="ben", reference=REFERENCE, segments=[(9, 'a "text"\nof two lines', "ben/9.wav", 2**63 - 1)])
    anna = manifest().speakers[0]
    return manifest().model_copy(update={"speakers": [anna, ben], "ids": [(3, "intro")], "path": "/home/b.json"})


@pytest.fixture
def kept(tmp_path: Path) -> KeptBatch:
    batch = KeptBatch(batch_folder(tmp_path, "b"))
    batch.write(two_speakers())
    return batch


def test_a_kept_batch_is_the_manifest_without_chunks(kept: KeptBatch) -> None:
    whole = two_speakers()
    assert kept.part(lambda _: True) == whole.model_copy(update={"chunks": []})
    assert kept.head() == whole.model_copy(update={"speakers": [], "chunks": [], "ids": []})
    assert [(speaker.id, row.segment, name) for speaker, row, name in kept.segments()] == [
        *(("anna", n, "intro" if n == 3 else None) for n in range(5)),
        ("ben", 9, None),
    ]


def test_a_part_has_the_wanted_segments_and_their_speakers_alone(kept: KeptBatch) -> None:
    part = kept.part(lambda row: row.segment in {1, 3})
    assert [(speaker.id, [row.segment for row in speaker.segments]) for speaker in part.speakers] == [("anna", [1, 3])]
    assert part.ids == [(3, "intro")]
    assert kept.part(lambda row: row.output == "ben/9.wav").speakers == two_speakers().speakers[1:]


def test_the_languages_of_texts_are_kept(tmp_path: Path) -> None:
    kept = KeptBatch(batch_folder(tmp_path, "b"))
    kept.write(in_languages())
    assert kept.part(lambda _: True) == in_languages().model_copy(update={"chunks": []})
    languages = ["de", "", "de", "pt-BR", "de"]
    assert [found.speaker.language_of(found.row.segment) for found in kept.segments()] == languages


def test_no_line_gets_longer_with_the_texts_of_a_speaker_in_other_languages(tmp_path: Path) -> None:
    rows = [(n, f"Text {n}.", f"{n}.wav", n) for n in range(2000)]
    others = [(n, "pt-BR") for n in range(1, 2000, 2)]
    anna = SpeakerRow(id="anna", reference=REFERENCE, segments=rows, language="de", other_languages=others)
    whole = manifest().model_copy(update={"speakers": [anna], "chunks": []})
    kept = KeptBatch(batch_folder(tmp_path, "b"))
    kept.write(whole)
    assert max(map(len, (tmp_path / ".cloner/b" / BATCH).read_bytes().splitlines())) < 1000
    assert kept.part(lambda _: True) == whole


def test_languages_that_an_earlier_version_has_kept_with_the_speaker_are_read(tmp_path: Path) -> None:
    kept = KeptBatch(batch_folder(tmp_path, "b"))
    kept.write(in_languages())
    path = tmp_path / ".cloner/b" / BATCH
    lines = path.read_text().splitlines()
    assert [line.endswith((',""]', ',"pt-BR"]')) for line in lines[2:]] == [False, True, False, True, False]
    lines[1] = lines[1].replace('"other_languages":[]', '"other_languages":[[1,""],[3,"pt-BR"]]')
    lines[3], lines[5] = lines[3].replace(',""]', "]"), lines[5].replace(',"pt-BR"]', "]")
    path.write_text("\n".join(lines) + "\n")
    assert kept.part(lambda _: True) == in_languages().model_copy(update={"chunks": []})


def test_a_batch_that_was_kept_without_languages_is_read(kept: KeptBatch) -> None:
    """As an earlier version has kept it."""
    path = kept._folder.path / BATCH
    whole = path.read_text()
    old = whole.replace(',"language":"","other_languages":[]', "")
    assert whole.count("language") == 4
    assert old.count("language") == 0
    path.write_text(old)
    assert kept.part(lambda _: True).speakers == two_speakers().speakers


def test_a_kept_batch_is_no_part_of_the_record(kept: KeptBatch, tmp_path: Path) -> None:
    batch_folder(tmp_path, "b").write("manifest.jsonl", [b'{"segment":0}\n'])
    record = Record(tmp_path, "b")
    record.refresh()
    assert record.results == {}
    assert kept.head().source == "b.json"


DAMAGES: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "an output outside": (lambda lines: [line.replace("ben/9", "../../9") for line in lines], "1 validation errors"),
    "cut within a line": (lambda lines: [*lines[:-1], lines[-1][:-10]], "1 validation errors"),
    "cut between lines": (lambda lines: lines[:-2], "it has 5 segments instead of 6"),
    "without a segment": (lambda lines: [*lines[:3], *lines[4:]], "it has 5 segments instead of 6"),
    "a line twice at the end": (lambda lines: [*lines, lines[-1]], "segment 9 is there twice"),
    "a line in place of another": (lambda lines: [*lines[:3], lines[2], *lines[4:]], "segment 0 is there twice"),
    "no source": (lambda lines: [line.replace('"source"', '"sources"') for line in lines], "1 validation errors"),
    "of another batch": (lambda lines: [line.replace('"b"', '"other"') for line in lines], "it is of batch other"),
    "empty": (lambda _: [], "1 validation errors"),
}


@pytest.mark.parametrize(("change", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_batch_is_a_sentence(
    kept: KeptBatch, tmp_path: Path, change: Callable[[list[str]], list[str]], reason: str
) -> None:
    path = tmp_path / ".cloner/b" / BATCH
    before = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(before)))
    sentence = rf"batch.ndjson is damaged, or another version wrote it \({reason}\): submit the batch's file again"
    with pytest.raises(Damaged, match=sentence):
        kept.part(lambda _: True)
    with pytest.raises(Damaged, match=r"batch.ndjson is damaged"):
        read_part(tmp_path, PartRequest(batch_id="b", segments=[0, 9]))


def test_a_repeated_segment_that_is_not_wanted_is_found_by_the_number_of_segments(
    kept: KeptBatch, tmp_path: Path
) -> None:
    with (tmp_path / ".cloner/b" / BATCH).open("a") as file:
        file.write('[9,"text","ben/9.wav",9,null]\n')
    with pytest.raises(Damaged, match="it has 7 segments instead of 6"):
        kept.part(lambda row: row.segment == 1)


def test_a_batch_that_a_death_left_in_part_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = KeptBatch(batch_folder(tmp_path, "b"))

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", no_room)
        with pytest.raises(OSError, match="No space left"):
            batch.write(two_speakers())
    with pytest.raises(FileNotFoundError):
        batch.head()
    batch.write(two_speakers())
    assert batch.head().source == "b.json"


def rows(*data: bytes) -> list[ReferenceRow]:
    return [
        ReferenceRow(kind=ReferenceKind.CODES, digest=reference_key(ReferenceKind.CODES, item), text="Hello.")
        for item in data
    ]


def all_one(digests: Sequence[str]) -> dict[str, bytes]:
    return dict.fromkeys(digests, b"one")


def test_codes_are_read_many_at_once_and_recordings_one_by_one(tmp_path: Path) -> None:
    codes = [str(number).encode() for number in range(2 * TOGETHER + 1)]
    kept = [(ReferenceKind.CODES, data) for data in codes] + [(ReferenceKind.AUDIO, data) for data in codes[:3]]
    there = {reference_key(kind, data): data for kind, data in kept}
    references = [
        ReferenceRow(kind=kind, digest=digest, text="Hello.") for (kind, _), digest in zip(kept, there, strict=True)
    ]
    read: list[int] = []

    def found(digests: Sequence[str]) -> dict[str, bytes]:
        read.append(len(digests))
        return {digest: there[digest] for digest in digests}

    KeptReferences(tmp_path).keep(references, found)
    assert read == [TOGETHER, TOGETHER, 1, 1, 1, 1]
    assert [KeptReferences(tmp_path).read(row) for row in references] == [data for _, data in kept]


def test_references_are_kept_once_for_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(kept_references, "flush_file_system", flushed.append)
    one, two, gone = rows(b"one", b"two", b"gone")
    there = {one.digest: b"one", two.digest: b"two"}

    def read(digests: Sequence[str]) -> dict[str, bytes]:
        return {digest: there[digest] for digest in digests if digest in there}

    references = KeptReferences(tmp_path)
    references.keep([one, gone, one], read)
    del there[one.digest]  # it is not read again
    references.keep([one, two], read)
    assert len(flushed) == 2
    assert [references.read(row) for row in (one, two, gone)] == [b"one", b"two", None]


@pytest.mark.parametrize("left", [b"", b"o", b"two"], ids=["empty", "cut", "other"])
def test_a_reference_that_is_not_as_it_was_kept_is_kept_again(tmp_path: Path, left: bytes) -> None:
    (row,) = rows(b"one")
    references = KeptReferences(tmp_path)
    references.keep([row], all_one)
    (tmp_path / ".cloner/references" / f"{row.digest}.npy").write_bytes(left)
    assert references.read(row) is None
    references.keep([row], all_one)
    assert references.read(row) == b"one"


def test_a_collector_that_dies_leaves_the_reference_that_another_writes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two open batches with the same voice at once."""
    (row,) = rows(b"one")
    write, written = os.write, list[bytes]()

    def interleave(file: int, data: memoryview) -> int:
        written.append(bytes(data))
        if len(written) == 1:
            with pytest.raises(Killed):
                KeptReferences(tmp_path).keep([row], all_one)
        elif len(written) == 2:
            write(file, data[:1])
            raise Killed
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interleave)
        KeptReferences(tmp_path).keep([row], all_one)
    assert written == [b"one"] * 2
    assert KeptReferences(tmp_path).read(row) == b"one"
