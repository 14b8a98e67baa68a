"""Rows of the flat form, which JSON, JSON Lines and tables share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cloner.batch import ReferenceKind
from cloner.errors import Problem
from cloner.input.rows import NamedReference, Row
from cloner.input.schema import Task, checked


def task_rows(
    values: object, place: str, number: int, names: Mapping[str, str] = MappingProxyType({})
) -> Iterable[Row | Problem]:
    """The row of a task, or its problems; `number` is its place in the file, from 0, and `names` are those by which the
    user knows some keys."""
    task = checked(Task, values, place, names)
    if not isinstance(task, Task):
        return task
    reference = None
    if task.npy_file is not None:
        reference = NamedReference(ReferenceKind.CODES, task.npy_file, task.reference_text)
    return [
        Row(
            place=place,
            reference_place=place,
            number=number,
            speaker_id=task.speaker_id,
            text=task.target_text,
            segment_index=task.segment_index,
            output_file=task.output_file,
            reference=reference,
            id=task.id,
            seed=task.seed,
            language=task.language,
        )
    ]
