"""Which takes a batch wants to have reviewed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloner.batch import Review, ReviewSample
from cloner.cli.options import with_review
from cloner.errors import BadBatch, UsageError
from cloner.input.batch_file import read_batch
from cloner.input.review import checked_review, parse_review
from tests.support.batches import write_batch


@pytest.mark.parametrize(
    ("value", "review"),
    [
        (None, None),
        ("none", "none"),
        ("all", "all"),
        ("suspects", "suspects"),
        ({"sample": 0.05}, ReviewSample(sample=0.05)),
    ],
)
def test_a_batch_file_says_it(tmp_path: Path, value: object, review: Review | None) -> None:
    fields: dict[str, Any] = {} if value is None else {"review": value}
    assert read_batch(write_batch(tmp_path, [1], **fields), out_root=None, references=None).review == review


@pytest.mark.parametrize(
    "value", ["some", 0.05, {"sample": 0}, {"sample": 1.5}, {"sample": "x"}, {"part": 1}, [], True]
)
def test_what_a_batch_file_cannot_say_is_a_problem(tmp_path: Path, value: object) -> None:
    path = write_batch(tmp_path, [1], review=value)
    with pytest.raises(BadBatch, match=r'review: it is .*; give "none", "suspects", "all" or {"sample": 0.05}'):
        read_batch(path, out_root=None, references=None)
    with pytest.raises(UsageError, match="review is"):
        checked_review(value)


def test_the_command_line_replaces_what_the_file_says(tmp_path: Path) -> None:
    batch = read_batch(write_batch(tmp_path, [1], review="all"), out_root=None, references=None)
    assert with_review(batch, None) == batch
    assert with_review(batch, "0.25").review == ReviewSample(sample=0.25)
    assert with_review(batch, "none").review == "none"


@pytest.mark.parametrize("text", ["", "some", "0", "2", "-1", "nan", "inf"])
def test_what_the_command_line_cannot_say_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"--review .*: give none, suspects, all, or the part of the batch"):
        parse_review(text)
