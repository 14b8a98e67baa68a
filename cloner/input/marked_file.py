"""Files of marked segments, as a batch's report saves them: ``{"batch": ID, "bad": [3, "anna/0004.wav"]}``.

``bad`` has the indexes of segments, or their outputs as in the batch's result. Other fields are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloner.batch import MAX_SEGMENTS
from cloner.errors import UsageError
from cloner.validation import shown

MAX_BYTES = 64 * 1024**2
"""The longest file: a million outputs of 64 bytes."""

Index = Annotated[int, Field(ge=0, lt=2**63)]
Output = Annotated[str, Field(min_length=1, max_length=4096)]


class MarkedFile(BaseModel):
    """The segments of a batch that are marked as bad."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    batch: str
    bad: Annotated[list[Index | Output], Field(max_length=MAX_SEGMENTS, fail_fast=True)]

    @property
    def segments(self) -> list[int]:
        """Those that are marked by index."""
        return [mark for mark in self.bad if isinstance(mark, int)]

    @property
    def outputs(self) -> list[str]:
        """Those that are marked by output."""
        return [mark for mark in self.bad if isinstance(mark, str)]


def read_marked(path: Path, batch_id: str) -> MarkedFile:
    """The marked segments of that batch. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name a file of marked segments") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes: name a file of marked segments")
    try:
        marked = MarkedFile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"][:2])) or "the file"
        raise UsageError(
            f'{path}: {place}: {first["msg"]}; it should be as {{"batch": "{batch_id}", "bad": [3, "anna/0004.wav"]}}'
        ) from None
    if marked.batch != batch_id:
        raise UsageError(f"{path} marks segments of batch {shown(marked.batch)}, and the command names {batch_id}")
    if not marked.bad:
        raise UsageError(f"{path} marks no segment: there is nothing to redo")
    return marked
