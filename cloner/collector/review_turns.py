"""Which batches are reviewed at once: few, since the samples of a window are in Redis, and the batch's review in a
collector's memory. Others wait, and go on in the order in which they were submitted.

Whether a batch may go on follows from the rounds of the open batches alone: nothing is left behind by a process that
dies, or by a batch that ends.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile

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
    found = []
    for batch_id in batches.open_ids(cancelled=True):
        with suppress(Damaged):  # then no collector can close it
            found.append((batch_id, batches.round(batch_id)))
    return found


def may_be_reviewed(batch_id: str, takes: int, rounds: list[tuple[str, Round]]) -> bool:
    """Whether a batch with so many takes to review may send its first window. `rounds` are those of the open batches,
    in order."""
    under_review = [present for _, present in rounds if present.reviews]
    places = MOST_BATCHES - len(under_review)
    has_large = any(present.to_review >= LARGE for present in under_review)
    for _, present in takewhile(lambda one: one[0] != batch_id, rounds):
        is_large = present.to_review >= LARGE
        if present.waits and not (is_large and has_large):
            places -= 1
            has_large |= is_large
    return places > 0 and not (takes >= LARGE and has_large)
