"""The lock of an output root: two fleets that write there would overwrite each other's files.

Each fleet holds a lock on a file of its own, ``OUT/.cloner/fleets/<fleet>.lock``, which its processes share: launchers,
workers with their child processes, collectors, and `cloner run`. Each holds it from its start to its end, so the folder
is locked as long as one of them may write there, even if it is frozen. It is the kernel's lock (``flock``), so that of
a killed process is released.
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

from cloner.errors import OutputsTaken
from cloner.events import Event
from cloner.logs import log_event
from cloner.validation import HOUSEKEEPING

MAX_ATTEMPTS = 5
"""Attempts to get the lock. Of two fleets that start at the same moment, one or both release it and try again."""


@contextmanager
def output_lock(root: Path, fleet: str) -> Iterator[None]:
    """Hold the lock of the output root `root` for a fleet; its processes share the lock.

    Raises `OutputsTaken` if another fleet holds it. If the folder's file system supports no locks, a warning is logged.
    """
    own = _lock_file(root, fleet)
    file = None
    try:
        file = _acquire(own.parent, own)
    except OSError as error:
        log_event(Event.FOLDER_NOT_LOCKED, folder=own.parent, error=error)
    try:
        yield
    finally:
        if file is not None:
            _release(own, file)


def share_output_lock(root: Path, fleet: str) -> None:
    """Share the lock that this process's parent holds, until this process ends.

    A child process that is in a system call when its parent is killed may finish writing a file afterwards. Where the
    folder cannot be locked, the parent has logged it.
    """
    with suppress(OSError):
        _lock(_lock_file(root, fleet))


def _lock_file(root: Path, fleet: str) -> Path:
    return root.resolve() / HOUSEKEEPING / "fleets" / f"{fleet}.lock"


def _acquire(folder: Path, own: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(MAX_ATTEMPTS):
        file = _lock(own)
        others = [path for path in folder.glob("*.lock") if path != own and _is_held(path)]
        if not others:
            return file
        _release(own, file)
        time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - so that two fleets do not retry at the same moment
    raise OutputsTaken(
        f"fleet {others[0].stem} ({_holder(others[0])}) writes under {folder.parent.parent}: wait until it has ended,"
        " or take another folder (--out of a run, CLONER_OUT_DIR of a fleet)"
    )


def _lock(path: Path) -> int:
    """Get the fleet's lock, shared with its other processes; returns the descriptor.

    Blocks while another process checks the lock. The first process of the fleet writes its id and host to the file.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        fcntl.flock(file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)  # another process of the fleet has removed it meanwhile


def _is_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR)  # NFS locks nothing exclusively that cannot be written
    except PermissionError:
        file = os.open(path, os.O_RDONLY)  # another user's
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _release(path: Path, file: int) -> None:
    """Release the lock, and remove its file if no other process of the fleet holds it."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(file)


def _holder(path: Path) -> str:
    with suppress(OSError):
        if holder := path.read_text(errors="replace"):
            return holder
    return "somewhere"
