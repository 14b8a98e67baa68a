"""The processes below a launcher."""

from __future__ import annotations

import psutil

from tests.support.processes import LoggedProcess


def descendants(fleet: LoggedProcess) -> list[psutil.Process]:
    """All descendants of a launcher."""
    return psutil.Process(fleet.process.pid).children(recursive=True)


def celery_parents(fleet: LoggedProcess, module: str) -> list[psutil.Process]:
    """Celery's parent processes: ``python -m module``, as the launcher has started them."""
    return [process for process in psutil.Process(fleet.process.pid).children() if process.cmdline()[-1] == module]


def celery_child(parent: psutil.Process) -> psutil.Process:
    """The child process that runs the tasks; the parent's other child tracks semaphores."""
    (found,) = [
        process for process in parent.children() if "semaphore_tracker import" not in " ".join(process.cmdline())
    ]
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has ended; its parent, killed with it, may not have fetched its status."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
