"""A process: the cores that it may use, its start and its end.

It imports without garbage collection, and ends with its parent, however that ends: a worker with its launcher, a
worker's child with it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARENT_PID = "CLONER_PARENT_PID"
"""Environment variable by which a process gives its child processes its process id."""

LEASE = "CLONER_LEASE"
"""Environment variable by which a launcher gives its child processes the value of its lease of the box."""

PR_SET_PDEATHSIG = 1
"""From ``<linux/prctl.h>``."""


CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> int:
    """Cores that this process may use, 1 or more, as affinity and the quotas of its control groups limit them. A quota
    of 1.5 cores counts as one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in control_groups(membership, cgroups) if (quota := _cpu_quota(folder)) is not None]
    return max(1, int(min([cores, *quotas])))


def control_groups(membership: Path, cgroups: Path) -> list[Path]:
    """The folders of this process's groups and of all their parents: the smallest limit among them holds."""
    folders: list[Path] = []
    for line in read_limit(membership).splitlines():
        _, controllers, own = line.split(":", 2)
        roots = [cgroups / name for name in controllers.split(",") if name in ("cpu", "memory")]
        if not controllers:
            roots = [cgroups]
        # Inside a container the path may be the host's; then only the root exists there, and it is the container's.
        own = own.strip("/")
        parts = [Path(own), *Path(own).parents]
        folders += [root / part for root in roots for part in parts if (root / part).is_dir()]
    return folders


def read_limit(path: Path) -> str:
    """What such a folder's file says, empty if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # not Linux, or the controller does not exist


def _cpu_quota(folder: Path) -> float | None:
    """CPU time that a group gets, in cores; None if it has no limit."""
    v2 = read_limit(folder / "cpu.max").split()
    quota, period = (
        v2 if len(v2) == 2 else (read_limit(folder / "cpu.cfs_quota_us"), read_limit(folder / "cpu.cfs_period_us"))
    )
    # "max" in v2 and -1 in v1 mean no limit.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def die_with_group() -> None:
    """Kill this process and all that it started; the launcher has given it a process group of its own."""
    os.killpg(0, signal.SIGKILL)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even of SIGKILL.

    It gets no stop signal: it may hang or be frozen, no process is left to kill it later, and the next launcher
    requeues its messages. Call it first in the process's main function. Does nothing in a process that was started by
    hand (it may outlive its shell), and where there is no ``prctl`` (only Linux has it). The kernel watches the
    *thread* that started this process, so the launcher starts its child processes from its main thread. Raises
    `OSError` if the kernel refuses, `SystemExit` if the parent has ended already.
    """
    parent = os.environ.pop(PARENT_PID, None)
    if parent is None or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if str(os.getppid()) != parent:
        raise SystemExit("the process that started this one is gone")


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Imports inside it do not run the garbage collector, and the process does not at its exit either.

    Modules stay until the exit, when the kernel frees all memory: the collections that traverse them find nothing, and
    take a quarter of the CPU time of a command that prints a line.
    """
    atexit.register(gc.freeze)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
