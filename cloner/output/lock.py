"""One fleet at a time writes under an output root: two would overwrite each other's files, and not know.

Each fleet holds a lock on a file of its own, ``OUT/.cloner/fleets/<fleet>.lock``: `cloner run` for as long as it runs,
a fleet that is up by its collectors. It is the kernel's lock (``flock``), so a killed process holds none.
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

TRIES = 5
"""Looks for another fleet. Of two that start at the same moment one goes back, and comes again a moment later."""


@contextmanager
def output_lock(root: Path, fleet: str) -> Iterator[None]:
    """Be the only fleet that writes under `root`; further processes of the same fleet are welcome.

    Raises `OutputsTaken`. A folder in which nothing can be locked, as on some network file systems, is warned of.
    """
    folder = root.resolve() / HOUSEKEEPING / "fleets"
    own = folder / f"{fleet}.lock"
    file = None
    try:
        file = _enter(folder, own)
    except OSError as error:
        log_event(Event.FOLDER_NOT_LOCKED, folder=folder, error=error)
    try:
        yield
    finally:
        if file is not None:
            _leave(own, file)


def _enter(folder: Path, own: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        file = _lock(own)
        others = [path for path in folder.glob("*.lock") if path != own and _is_held(path)]
        if not others:
            return file
        _leave(own, file)
        time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - two should not keep step
    raise OutputsTaken(
        f"fleet {others[0].stem} ({_who(others[0])}) writes under {folder.parent.parent}: wait until it has ended, or"
        " take another folder (--out of a run, CLONER_OUT_DIR of a fleet)"
    )


def _lock(path: Path) -> int:
    """Take a fleet's lock together with its other processes; waits for those that only look at it.

    The first of them puts down who it is.
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
        os.close(file)  # another process of the fleet has just removed it


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


def _leave(path: Path, file: int) -> None:
    """Let go, and remove the file if no other process of the fleet holds it."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(file)


def _who(path: Path) -> str:
    with suppress(OSError):
        if who := path.read_text(errors="replace"):
            return who
    return "somewhere"
