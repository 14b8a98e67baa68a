"""A process that the launcher started ends with it, however the launcher ends; and a worker's child with the worker."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_PID = "CLONER_PARENT_PID"
"""Environment variable in which a process tells those it starts its own process id."""

LEASE = "CLONER_LEASE"
"""Environment variable in which a launcher tells its children as whom it holds the box."""

PR_SET_PDEATHSIG = 1
"""From ``<linux/prctl.h>``."""


def die_with_group() -> None:
    """Kill this process and all that it started, at once; the launcher has given it a process group of its own."""
    os.killpg(0, signal.SIGKILL)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies, even of SIGKILL.

    It is not asked to stop: it may hang or be frozen, nobody is there any more to insist, and what it has in hand is
    given back by the next launcher. Call it first thing in the process's main function. Does nothing in a process that
    was started by hand (it may outlive its shell), and where there is no ``prctl`` (only Linux has it). The kernel
    watches the *thread* that started this process, so the launcher starts its children from its main thread.
    Raises `OSError` if the kernel refuses, `SystemExit` if the parent is gone already.
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
