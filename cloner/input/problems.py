"""The problems of one batch file: all are counted, and the first are kept, so that a bad file fills no memory."""

from __future__ import annotations

from collections.abc import Iterable

from cloner.errors import BadBatch, Problem, one_line
from cloner.events import Event
from cloner.logs import log_event

MOST_KEPT = 1_000
"""Problems that an error message lists."""

MOST_COUNTED = 100_000
"""Problems after which a file is not read further: 20 MB can have ten million, and each takes microseconds."""

MOST_WARNED = 20
"""Warnings about one file that are logged."""


class Problems:
    """Collects the problems of the batch file `source`, and logs its warnings. They are raised as an `error`."""

    def __init__(self, source: str, error: type[BadBatch] = BadBatch) -> None:
        self.count = 0
        self._error = error
        self._source = source
        self._kept: list[Problem] = []
        self._warnings = 0

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if it is one of the first. Raises `BadBatch` when there are `MOST_COUNTED`."""
        self.count += 1
        if self.count <= MOST_KEPT:
            self._kept.append(problem)
        if self.count == MOST_COUNTED:
            raise self._error(self._source, self._kept, self.count, whole=False)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add `problems` one at a time. Raises as `add` does."""
        for problem in problems:
            self.add(problem)

    def warn(self, warning: Problem) -> None:
        """Log what is left out of the batch, or may be wrong with it, if it is one of the first `MOST_WARNED`."""
        self._warnings += 1
        if self._warnings <= MOST_WARNED:
            log_event(Event.BATCH_WARNING, source=one_line(self._source), warning=one_line(str(warning)))

    def raise_any(self) -> None:
        """Log how many warnings were not logged, and raise `BadBatch` if there is a problem."""
        if self._warnings > MOST_WARNED:
            log_event(Event.MORE_BATCH_WARNINGS, source=one_line(self._source), count=self._warnings - MOST_WARNED)
        if self.count:
            raise self._error(self._source, self._kept, self.count)
