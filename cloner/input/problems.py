"""The problems of one batch file: all are counted, and the first are kept, so that a bad file fills no memory."""

from __future__ import annotations

from collections.abc import Iterable

from cloner.errors import BadBatch, Problem

MOST_KEPT = 1_000
"""Problems that an error message lists."""

MOST_COUNTED = 100_000
"""Problems after which a file is not read further: 20 MB can have ten million, and each takes microseconds."""


class Problems:
    """Collects the problems of the batch file `source`."""

    def __init__(self, source: str) -> None:
        self.count = 0
        self._source = source
        self._kept: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if it is one of the first. Raises `BadBatch` when there are `MOST_COUNTED`."""
        self.count += 1
        if self.count <= MOST_KEPT:
            self._kept.append(problem)
        if self.count == MOST_COUNTED:
            raise BadBatch(self._source, self._kept, self.count, whole=False)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add `problems` one at a time. Raises as `add` does."""
        for problem in problems:
            self.add(problem)

    def raise_any(self) -> None:
        """Raise `BadBatch` if there is a problem."""
        if self.count:
            raise BadBatch(self._source, self._kept, self.count)
