"""Generation parameters that a batch may have, and the seeds of its segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.batch import Generation, Reference, ReferenceKind, Segment, Speaker, segment_seeds
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from tests.support.batches import write_batch


@pytest.mark.parametrize(
    ("generation", "most"), [({"min_new_tokens": 2000}, 1024), ({"max_new_tokens": 10, "min_new_tokens": 11}, 10)]
)
def test_the_least_length_may_not_exceed_the_most(tmp_path: Path, generation: dict[str, int], most: int) -> None:
    batch = write_batch(tmp_path, [1], generation=generation)
    least = generation["min_new_tokens"]
    message = f"generation: min_new_tokens is {least}; it should be at most max_new_tokens, which is {most}"
    with pytest.raises(BadBatch, match=message):
        read_batch(batch, out_root=tmp_path, references=None)


def test_the_least_length_may_equal_the_most(tmp_path: Path) -> None:
    batch = write_batch(tmp_path, [1], generation={"min_new_tokens": 12, "max_new_tokens": 12})
    assert read_batch(batch, out_root=tmp_path, references=None).generation == Generation(
        min_new_tokens=12, max_new_tokens=12
    )


def seeds(*texts: str | Segment, speaker: str = "anna", seed: int = 0) -> list[int]:
    segments = tuple(
        text if isinstance(text, Segment) else Segment(n, text, f"{n}.wav") for n, text in enumerate(texts)
    )
    return list(segment_seeds(Speaker(speaker, Reference(ReferenceKind.CODES, (), "said"), segments), seed))


def test_a_segments_seed_does_not_depend_on_its_place() -> None:
    one, two, three = seeds("One.", "Two.", "Three.")
    assert seeds("New.", "Three.", "One.", "Two.")[1:] == [three, one, two]
    assert len({one, two, three, *seeds("One.", speaker="ben"), *seeds("One.", seed=1)}) == 5


def test_a_text_that_comes_again_has_another_seed() -> None:
    first, again = seeds("One.", "One.")
    assert first != again
    assert seeds("One.", "Two.", "One.")[2] == again


def test_a_segment_with_an_id_keeps_its_seed_when_its_text_changes() -> None:
    (before,) = seeds(Segment(0, "One.", "0.wav", id="intro"))
    assert seeds("New.", Segment(1, "One, corrected.", "0.wav", id="intro"))[1] == before
    assert seeds(Segment(0, "One.", "0.wav", id="intro"), seed=1) != [before]


def test_a_segments_own_seed_is_used_as_it_is() -> None:
    assert seeds(Segment(0, "One.", "0.wav", seed=3), "One.", seed=9)[0] == 3
