"""Which takes a batch, or the command that reads it, wants to have reviewed."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from cloner.batch import Review, ReviewSample
from cloner.errors import Problem, UsageError
from cloner.input.problems import Problems
from cloner.validation import shown

_REVIEW: TypeAdapter[Review] = TypeAdapter(Review)

_RIGHT = 'give "none", "suspects", "all" or {"sample": 0.05}, a part of the batch that is more than 0 and at most 1'


def read_review(value: object, problems: Problems) -> Review | None:
    """What a batch file's ``review`` says; None where there is none, and where it is wrong, which is a problem."""
    if value is None:
        return None
    try:
        return _REVIEW.validate_python(value)
    except ValidationError:
        problems.add(Problem("review", f"it is {shown(value)}", _RIGHT))
        return None


def checked_review(value: object) -> Review:
    """What a program asks for. Raises `UsageError`."""
    try:
        return _REVIEW.validate_python(value)
    except ValidationError:
        raise UsageError(f"review is {shown(value)}: {_RIGHT}") from None


def parse_review(text: str) -> Review:
    """What ``--review`` says: "none", "suspects", "all", or a part of the batch such as "0.05". Raises `UsageError`."""
    try:
        return ReviewSample(sample=float(text))
    except ValueError:  # no number, or none that is a part
        pass
    try:
        return _REVIEW.validate_python(text)
    except ValidationError:
        raise UsageError(
            f"--review {shown(text)}: give none, suspects, all, or the part of the batch that a random sample has, such"
            " as 0.05"
        ) from None
