"""A process that the launcher started ends with it, however the launcher ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

LAUNCHER_PID = "CLONER_LAUNCHER_PID"
"""Environment variable in which the launcher tells a child its own process id."""

PR_SET_PDEATHSIG = 1
"""From ``<linux/prctl.h>``."""


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when the launcher that started it dies, even of SIGKILL.

    Call it first thing in the process's main function. Does nothing in a process that was started by hand (it may
    outlive its shell), in children of a child, and where there is no ``prctl`` (only Linux has it). The kernel watches
    the *thread* that started this process, so the launcher starts its children from its main thread.
    Raises `OSError` if the kernel refuses, `SystemExit` if the launcher is gone already.
    """
    launcher = os.environ.pop(LAUNCHER_PID, None)
    if launcher is None or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if str(os.getppid()) != launcher:
        raise SystemExit("the launcher that started this process is gone")
