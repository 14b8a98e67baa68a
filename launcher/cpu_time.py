"""Processor time of the processes that a child process has started, from Linux's ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

COUNTED_S = 0.1
"""Seconds of processor time in one unit of `cpu_times`: a process that only sends heartbeats takes minutes for one."""


def cpu_times(sessions: Collection[int]) -> dict[int, dict[int, int]]:
    """Processor time of the processes of these sessions: process ids by session, each with its units of `COUNTED_S`.

    A session has none where it has ended, or where there is no ``/proc``.
    """
    times: dict[int, dict[int, int]] = {session: {} for session in sessions}
    for path in Path("/proc").glob("[0-9]*/stat") if times else ():
        with suppress(OSError):  # it has ended meanwhile
            # proc_pid_stat(5): the name, in parentheses, may contain any character; fields are counted from 1.
            fields = path.read_bytes().rpartition(b")")[2].split()
            session, user, system = (int(fields[number - 3]) for number in (6, 14, 15))
            if session in times:
                times[session][int(path.parent.name)] = int((user + system) / TICKS_PER_S / COUNTED_S)
    return times
