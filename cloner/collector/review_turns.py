"""Which batches are reviewed at once: few, since the samples of a window are in Redis, and the batch's review in a
collector's memory. Others wait, and go on in the order in which they were submitted.

Whether a batch may go on follows from the rounds of the open batches alone: nothing is left behind by a process that
dies, or by a batch that ends.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloner.errors import Damaged
from cloner.state.batches import BatchStore
from cloner.state.progress import Round

MOST_BATCHES = 16
"""Batches whose takes are reviewed at once. A window of speech takes 15 MB of Redis, of noise 35 MB, and 60 MB at most:
all together, less than half of the 2 GB that it has in a container."""

LARGE = 20_000
"""Takes to review from which on a batch is large, and only one such batch is reviewed at once: a take whose review is
noted takes 1.4 kB of the collector's memory."""


def open_rounds(batches: BatchStore) -> list[tuple[str, Round]]:
    """The open batches and their present rounds, in the order in which they were submitted."""
    return [*_open_rounds(batches)]


def may_be_reviewed(batch_id: str, takes: int, rounds: list[tuple[str, Round]]) -> bool:
    """Whether a batch with so many takes to review may send its first window. `rounds` are those of the open batches,
    in order."""
    ids = [other for other, _ in rounds]
    place = ids.index(batch_id) if batch_id in ids else len(ids)
    first = [
        present
        for index, (other, present) in enumerate(rounds)
        if other != batch_id and (present.reviews or (present.waits and index < place))
    ]
    is_free = takes < LARGE or all(present.to_review < LARGE for present in first)
    return is_free and len(first) < MOST_BATCHES


def _open_rounds(batches: BatchStore) -> Iterator[tuple[str, Round]]:
    for batch_id in batches.open_ids(cancelled=True):
        try:
            yield batch_id, batches.round(batch_id)
        except Damaged:
            continue  # no collector can close it
