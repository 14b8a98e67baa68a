"""Whether an output root can be written: asked before models are loaded, since each segment would fail afterwards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cloner.errors import UsageError
from cloner.output.atomic_file import NO_ROOM
from cloner.output.own_folder import OwnFolder

PROBE = "probe"
"""Name of the empty file that is created and removed again."""


def require_writable(root: Path) -> None:
    """Make the output root `root` if it is missing. Raises `UsageError` if no file can be created there.

    A full disk is no error: workers wait until it has room.
    """
    own = OwnFolder(root.resolve())
    try:
        os.close(own.open_file(PROBE, os.O_WRONLY | os.O_CREAT))
        own.remove(PROBE)
    except OSError as error:
        if error.errno not in NO_ROOM:
            match error.errno:
                case errno.EACCES | errno.EPERM:
                    first = f"give it to user {os.geteuid()}, or "
                case errno.EROFS:
                    first = "mount it for writing, or "
                case _:
                    first = ""
            raise UsageError(
                f"the output folder {root.resolve()} cannot be written ({error.strerror}): {first}take another folder"
                " (--out of a run, CLONER_OUT_DIR of a fleet)"
            ) from error


def seems_writable(root: Path) -> bool:
    """Whether the output root, or the nearest folder above it that is there, may be written, as far as that is known
    without writing."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    return os.access(there, os.W_OK | os.X_OK)
