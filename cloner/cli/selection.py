"""`--speaker` and `--limit`: a part of a batch, to listen to before all of it is generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloner.batch import STANDARD_INPUT
from cloner.errors import UsageError, some_of
from cloner.validation import shown

if TYPE_CHECKING:
    from cloner.batch import Batch

SHOWN = 10
"""Most speakers that an error names."""

Speakers = Annotated[
    list[str] | None, typer.Option("--speaker", help="Only this speaker; may be given several times.", metavar="ID")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N texts of each speaker.", metavar="N")]


def select(batch: Batch, speakers: list[str] | None, limit: int | None, *, strict: bool = False) -> Batch:
    """The part of the batch that the options ask for. What may be wrong with its references is logged.

    Raises `UsageError` if it has no such speaker, or is to prune; and with `strict` `BadBatch` if something may be
    wrong with a reference, or a text cannot be spoken.
    """
    from cloner.client.texts import refuse_doubtful, warn_of_references

    part = _part(batch, speakers, limit)
    if strict:
        refuse_doubtful(part)
    else:
        warn_of_references(part)
    return part


def _part(batch: Batch, speakers: list[str] | None, limit: int | None) -> Batch:
    if batch.prune and batch.source == STANDARD_INPUT:
        raise UsageError("--prune goes without standard input: it is not known what its earlier versions are")
    if not speakers and limit is None:
        return batch
    if batch.prune:
        raise UsageError("--prune goes without --speaker and --limit: it removes what the batch does not name")
    known = [speaker.id for speaker in batch.speakers]
    for speaker in speakers or ():
        if speaker not in known:
            some = some_of(known, SHOWN)
            raise UsageError(f"no speaker is called {shown(speaker)}: give one of {some} with --speaker")
    return batch.part(speakers or (), limit)
