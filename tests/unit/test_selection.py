"""A part of a batch: `--speaker` and `--limit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloner.batch import STANDARD_INPUT, Batch, Reference, ReferenceKind, Segment, Speaker, segment_seeds
from cloner.cli.selection import select
from cloner.errors import UsageError

REFERENCE = Reference(ReferenceKind.CODES, (), "Hello.")


def speaker(name: str) -> Speaker:
    texts = ["One.", "Two.", "One.", "One."]
    return Speaker(name, REFERENCE, tuple(Segment(n, text, f"{name}/{n}.wav") for n, text in enumerate(texts)))


BATCH = Batch(Path("b.json"), (speaker("anna"), speaker("bob"), speaker("5")))


def test_without_options_it_is_the_whole_batch() -> None:
    assert select(replace(BATCH, prune=True), None, None) == replace(BATCH, prune=True)


def test_a_part_keeps_names_and_seeds() -> None:
    part = select(BATCH, ["bob", "5"], 3)
    assert part.partial
    assert [(one.id, len(one.segments)) for one in part.speakers] == [("bob", 3), ("5", 3)]
    whole = BATCH.speakers[1]
    assert part.speakers[0].segments == whole.segments[:3]
    assert [*segment_seeds(part.speakers[0], 7)] == [*segment_seeds(whole, 7)][:3]


def test_a_speaker_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"^no speaker is called 'Anna': give one of anna, bob, 5 with --speaker$"):
        select(BATCH, ["Anna"], None)


def test_standard_input_has_no_earlier_versions() -> None:
    with pytest.raises(UsageError, match="--prune goes without standard input"):
        select(replace(BATCH, prune=True, source=STANDARD_INPUT), [], None)


def test_a_part_removes_nothing_of_the_rest() -> None:
    with pytest.raises(UsageError, match="--prune goes without"):
        select(replace(BATCH, prune=True), [], 1)
