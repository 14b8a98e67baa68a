"""How many pages and slots a worker's memory holds.

A segment gets the pages that it may need when it is admitted, so that slots need no memory of their own beyond a few
hundred kilobytes: where pages are scarce, segments wait for them. There are as many slots as can usually be filled.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloner.engine.kernels.step.layout import PAGE
from cloner.engine.memory import GB, MemoryBudget
from cloner.engine.token_rows.paged_cache import RESERVED, pages_of
from cloner.errors import LoadFailed
from cloner.events import Event, LogLine

OWN_POSITIONS = 828
"""Of a usual segment, beside its voice's: a text, and frames for half a minute."""

PREFIX_POSITIONS = 272
"""Of a usual voice: a reference of ten seconds and its text."""

LEAST_POSITIONS = 2048
"""Without so many, a worker does not start: one segment of any usual length."""

VOICES = 16
"""Voices whose prefixes stay in the cache beside the slots."""


@dataclass(frozen=True)
class PagePlan:
    """What the cache gets: `pages` in all for at most `slots` segments at a time."""

    slots: int
    pages: int
    page_bytes: int

    @property
    def nbytes(self) -> int:
        return self.pages * self.page_bytes

    def log_line(self) -> LogLine:
        """The sizes as a log line."""
        return Event.PAGES_PLANNED.line(slots=self.slots, pages=self.pages, positions=PAGE, cache_gb=self.nbytes / GB)


def plan_pages(memory: MemoryBudget, page_bytes: int, slots: int, *, exactly: bool = False) -> PagePlan:
    """Pages for `slots` usual segments that share nothing, and for the prefixes of `VOICES`; fewer where memory is, and
    then fewer slots too, once less than a usual segment's own pages are left for each, unless it has to be `exactly` so
    many. Raises `LoadFailed`."""
    slot_pages, prefix_pages = pages_of(OWN_POSITIONS), pages_of(PREFIX_POSITIONS)
    most = RESERVED + slots * (slot_pages + prefix_pages) + VOICES * prefix_pages
    pages = min(most, memory.available // page_bytes)
    least = RESERVED + pages_of(LEAST_POSITIONS) + 1
    if pages < least:
        needed = memory.workspace + least * page_bytes
        raise LoadFailed(
            f"a cache of {LEAST_POSITIONS} positions needs {needed / GB:.1f} GB beside the models"
            f" ({memory.used / GB:.1f} GB); of the {memory.limit / GB:.1f} GB that the worker may use,"
            f" {memory.free / GB:.1f} GB are free: start fewer workers on the card, or raise FISH_MODEL_MEMORY_GB"
        )
    fitting = max(1, min(slots, (pages - RESERVED) // slot_pages))
    return PagePlan(slots if exactly else fitting, pages, page_bytes)
