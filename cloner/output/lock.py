"""The lock of an output root: two fleets that write there would overwrite each other's files.

Each fleet holds a lock on a file of its own, ``OUT/.cloner/fleets/<fleet>.lock``, which its processes share: launchers,
workers and collectors with their child processes, and `cloner run`. Each holds it from its start to its end, so the
folder is locked as long as one of them may write there, even if it is frozen. It is the kernel's lock (``flock``), so
that of a killed process is released.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from cloner.errors import OutputsTaken
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.own_folder import OwnFolder

SUFFIX = ".lock"

MAX_ATTEMPTS = 5
"""Attempts to get the lock. Of two fleets that start at the same moment, one or both release it and try again."""


@contextmanager
def output_lock(root: Path, fleet: str) -> Iterator[None]:
    """Hold the lock of the output root `root` for a fleet; its processes share the lock.

    Raises `OutputsTaken` if another fleet holds it. If the folder's file system supports no locks, a warning is logged.
    """
    locks = _locks(root)
    file = None
    try:
        file = _acquire(locks, fleet)
    except OSError as error:
        log_event(Event.FOLDER_NOT_LOCKED, folder=locks.path, error=error)
    try:
        yield
    finally:
        if file is not None:
            _release(locks, fleet, file)


def share_output_lock(root: Path, fleet: str) -> None:
    """Share the lock that this process's parent holds, until this process ends.

    A child process that is in a system call when its parent is killed may finish writing a file afterwards. Where the
    folder cannot be locked, the parent has logged it.
    """
    with suppress(OSError):
        _lock(_locks(root), fleet)


def _locks(root: Path) -> OwnFolder:
    """The folder of the locks, with a file for each fleet."""
    return OwnFolder(root.resolve(), "fleets")


def _acquire(locks: OwnFolder, fleet: str) -> int:
    for _ in range(MAX_ATTEMPTS):
        file = _lock(locks, fleet)
        files = locks.files(f"*{SUFFIX}").items()
        names = [name for name, status in files if S_ISREG(status.st_mode) and name != fleet + SUFFIX]
        others = [name for name in names if _is_held(locks, name)]
        if not others:
            return file
        _release(locks, fleet, file)
        time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - so that two fleets do not retry at the same moment
    raise OutputsTaken(
        f"fleet {others[0].removesuffix(SUFFIX)} ({_holder(locks, others[0])}) writes under"
        f" {locks.path.parent.parent}: wait until it has ended,"
        " or take another folder (--out of a run, CLONER_OUT_DIR of a fleet)"
    )


def _lock(locks: OwnFolder, fleet: str) -> int:
    """Get the fleet's lock, shared with its other processes; returns the descriptor.

    Blocks while another process checks the lock. The first process of the fleet writes its id and host to the file.
    """
    name = fleet + SUFFIX
    while True:
        file = locks.open_file(name, os.O_RDWR | os.O_CREAT)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        fcntl.flock(file, fcntl.LOCK_SH)
        if (there := locks.files(name).get(name)) and there.st_ino == os.fstat(file).st_ino:
            return file
        os.close(file)  # another process of the fleet has removed it meanwhile


def _is_held(locks: OwnFolder, name: str) -> bool:
    try:
        file = locks.open_file(name, os.O_RDWR)  # NFS locks nothing exclusively that cannot be written
    except PermissionError:
        file = locks.open_file(name, os.O_RDONLY)  # another user's
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _release(locks: OwnFolder, fleet: str, file: int) -> None:
    """Release the lock, and remove its file if no other process of the fleet holds it."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locks.remove(fleet + SUFFIX)
    os.close(file)


def _holder(locks: OwnFolder, name: str) -> str:
    with suppress(OSError):
        if holder := locks.read(name).decode(errors="replace"):
            return holder
    return "somewhere"
