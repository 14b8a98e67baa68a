"""A speaker's row of the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.batch import Reference, ReferenceKind, Segment, Speaker
from cloner.client.submit import pack_speaker
from cloner.errors import UsageError
from tests.support.batches import write_codes


@pytest.mark.parametrize(
    ("languages", "of_most", "others"),
    [
        (["de", "de", "de"], "de", []),
        (["", "", ""], "", []),
        (["pt-BR", "de", "de"], "de", [(0, "pt-BR")]),
        (["de", "", "de"], "de", [(1, "")]),
        (["", "", "de"], "", [(2, "de")]),
        ([], "", []),
    ],
)
def test_the_language_of_most_texts_is_the_speakers_and_those_of_the_others_are_named(
    tmp_path: Path, languages: list[str], of_most: str, others: list[tuple[int, str]]
) -> None:
    reference = Reference(ReferenceKind.CODES, (write_codes(tmp_path / "a.npy", seed=0),), "Said.")
    segments = (Segment(index, f"Text {index}.", f"{index}.wav", language=own) for index, own in enumerate(languages))
    row, _ = pack_speaker(Speaker("anna", reference, tuple(segments)), seed=1)
    assert (row.language, row.other_languages) == (of_most, others)
    assert [row.language_of(index) for index in range(len(languages))] == languages


def test_a_language_changes_no_seed(tmp_path: Path) -> None:
    reference = Reference(ReferenceKind.CODES, (write_codes(tmp_path / "a.npy", seed=0),), "Said.")
    rows = [
        pack_speaker(Speaker("anna", reference, (Segment(0, "One.", "0.wav", language=language),)), seed=1)[0]
        for language in ("", "de")
    ]
    assert rows[0].segments == rows[1].segments


def test_what_no_batch_file_may_have_is_refused_with_its_place(tmp_path: Path) -> None:
    reference = Reference(ReferenceKind.CODES, (write_codes(tmp_path / "a.npy", seed=0),), "Said.")
    segments = (Segment(0, "One.", "0.wav"), Segment(1, "Two.", "../1.wav"))
    with pytest.raises(UsageError) as raised:
        pack_speaker(Speaker("anna", reference, segments), seed=1)
    reason = "segments.1.2: it is not inside the output root"
    assert raised.value.message == f"speaker 'anna' cannot be sent: {reason}"
