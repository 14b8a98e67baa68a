"""Generation parameters that a batch may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.batch import Generation
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
