"""Types of fields of what travels, and what is wrong with a value that other programs have made."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from cloner.errors import WrongSchema
from cloner.validation import canonical_language, name_flaw, output_flaw, prose_flaw, shown

_BATCH_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def is_batch_id(value: object) -> bool:
    """Whether `value` can be a batch's id: part of the names of Redis keys, and of a folder beside the outputs."""
    return isinstance(value, str) and bool(_BATCH_ID.fullmatch(value))


def check_batch_id(value: object) -> str:
    """Return `value` if it can be a batch's id. Raises `WrongSchema`."""
    if isinstance(value, str) and is_batch_id(value):
        return value
    raise WrongSchema(f"{shown(value)} is no batch's id")


def _unless(flaw: Callable[[str], str | None]) -> AfterValidator:
    """A validator of texts; `flaw` returns what is wrong with one, or None."""

    def check(text: str) -> str:
        if found := flaw(text):
            raise ValueError(f"it {found}")
        return text

    return AfterValidator(check)


def _output_flaw(output: str) -> str | None:
    flaw = output_flaw(output)
    return flaw[0] if flaw else name_flaw(output)


BatchId = Annotated[str, _unless(lambda text: None if is_batch_id(text) else "is no batch's id")]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Queue = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9._-]{1,200}$")]
Name = Annotated[str, _unless(name_flaw)]
Text = Annotated[str, _unless(prose_flaw)]
Output = Annotated[str, _unless(_output_flaw)]
Language = Annotated[
    str, _unless(lambda tag: None if not tag or canonical_language(tag) == tag else "is no language as batches have it")
]
"""As `canonical_language` writes it; empty if it is not known."""
Index = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]

Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True)]
"""A list that is refused at its first bad item: pydantic would collect 1 KB for each, from two bytes."""
