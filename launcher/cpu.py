"""Cores and memory that this process may use, as affinity and control groups limit them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cloner.process import CGROUPS, MEMBERSHIP, control_groups, read_limit, usable_cores


@dataclass(frozen=True)
class Cpu:
    """A machine's cores, for all workers, and its memory, for workers without a GPU."""

    cores: int
    total_bytes: int


def find_cpu(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> Cpu:
    """The machine's, or what the container may use of it if that is less."""
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in control_groups(membership, cgroups):
        # v2, then v1, where "no limit" is a number far above any memory.
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = read_limit(folder / name)
            if limit.isdigit():
                total_bytes = min(total_bytes, int(limit))
    return Cpu(usable_cores(membership, cgroups), total_bytes)
