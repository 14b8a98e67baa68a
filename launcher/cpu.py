"""Cores and memory that this process may use, as affinity and control groups limit them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cloner.process import usable_cores

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Cpu:
    """A machine's cores, for all workers, and its memory, for workers without a GPU."""

    cores: int
    total_bytes: int


def find_cpu(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> Cpu:
    """The machine's, or what the container may use of it if that is less. A quota of 1.5 cores counts as one."""
    cores = usable_cores()
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _own_groups(membership, cgroups):
        quota = _cpu_quota(folder)
        if quota is not None:
            cores = min(cores, max(1, int(quota)))
        # v2, then v1, where "no limit" is a number far above any memory.
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read(folder / name)
            if limit.isdigit():
                total_bytes = min(total_bytes, int(limit))
    return Cpu(cores, total_bytes)


def _own_groups(membership: Path, cgroups: Path) -> list[Path]:
    """The folders of this process's groups and of all their parents: the smallest limit among them holds."""
    folders: list[Path] = []
    for line in _read(membership).splitlines():
        _, controllers, own = line.split(":", 2)
        roots = [cgroups / name for name in controllers.split(",") if name in ("cpu", "memory")]
        if not controllers:
            roots = [cgroups]
        # Inside a container the path may be the host's; then only the root exists there, and it is the container's.
        own = own.strip("/")
        parts = [Path(own), *Path(own).parents]
        folders += [root / part for root in roots for part in parts if (root / part).is_dir()]
    return folders


def _cpu_quota(folder: Path) -> float | None:
    """CPU time that a group gets, in cores; None if it has no limit."""
    v2 = _read(folder / "cpu.max").split()
    quota, period = v2 if len(v2) == 2 else (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
    # "max" in v2 and -1 in v1 mean no limit.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # not Linux, or the controller does not exist
