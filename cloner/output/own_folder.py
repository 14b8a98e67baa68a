"""The folders in which the product keeps files of its own, within ``OUT/.cloner``.

Users who can write into the output folder may put a link there. None is followed below the output root: folders are
opened one by one, each by its name within its parent, and files by their name within their folder.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from cloner.output.atomic_file import FileAt, write_and_rename
from cloner.validation import HOUSEKEEPING

FOLDER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe must not block

NO_FOLDER = (FileNotFoundError, NotADirectoryError)
"""Nothing is there, or a file where a folder should be. (A link is neither: see `_open`.)"""


LEFT_S = 3600.0
"""Seconds without a write after which a temporary file belongs to no process any more."""


@contextmanager
def opened_folder(root: Path, names: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder at the end of a way down from `root`; with `make`, missing folders are made.

    Raises `OSError`, also where one of `names` is a link.
    """
    if make:
        root.mkdir(parents=True, exist_ok=True)
    opened = os.open(root, os.O_DIRECTORY)
    try:
        for name in names:
            inner = _open_inner(opened, name, make=make)
            os.close(opened)
            opened = inner
        yield opened
    finally:
        os.close(opened)


def _open_inner(folder: int, name: str, *, make: bool) -> int:
    try:
        return _open(folder, name, FOLDER_FLAGS)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another process has made it meanwhile
        os.mkdir(name, dir_fd=folder)
    return _open(folder, name, FOLDER_FLAGS)


def _open(folder: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, 0o644, dir_fd=folder)
    except OSError as error:
        # The kernel's own words: "Too many levels of symbolic links", or "Not a directory".
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and stat.S_ISLNK(
            os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        ):
            raise OSError(errno.ELOOP, "a link is not followed here", name) from error
        raise


def open_file(folder: int, name: str, flags: int) -> int:
    """A descriptor of a file in an open folder. Raises `OSError`, also where it is a link, a pipe or a device."""
    file = _open(folder, name, flags | FILE_FLAGS)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return file


def blocks_of(file: int, size: int) -> Iterator[bytes]:
    """The bytes of an open file, in blocks of at most `size` bytes; then it is closed."""
    with os.fdopen(file, "rb") as opened:
        while block := opened.read(size):
            yield block


class OwnFolder:
    """A folder within ``OUT/.cloner``, and its files by their names. Methods raise `OSError`."""

    def __init__(self, root: Path, *names: str) -> None:
        self.path = root.joinpath(HOUSEKEEPING, *names)
        self._root = root
        self._names = (HOUSEKEEPING, *names)

    def opened(self, *, make: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the folder; with `make`, it is made if it is missing."""
        return opened_folder(self._root, self._names, make=make)

    def open_file(self, name: str, flags: int) -> int:
        """A descriptor of a file. With `os.O_CREAT`, the folder is made if it is missing."""
        with self.opened(make=bool(flags & os.O_CREAT)) as folder:
            return open_file(folder, name, flags)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with os.fdopen(self.open_file(name, os.O_RDONLY), "rb") as file:
            return file.read()

    def lines(self, name: str, start: int = 0) -> Iterator[bytes]:
        """The lines of a file, from byte `start` on, each with its end if it has one."""
        with os.fdopen(self.open_file(name, os.O_RDONLY), "rb") as file:
            file.seek(start)
            yield from file

    def files(self, pattern: str) -> dict[str, os.stat_result]:
        """The files whose names match, and links of such names, in the order of names; none if there is no folder."""
        found = {}
        with suppress(*NO_FOLDER), self.opened() as folder:
            for name in _names(folder, pattern):
                with suppress(FileNotFoundError):  # another process has removed it meanwhile
                    found[name] = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found

    def blocks(self, name: str, size: int) -> Iterator[bytes]:
        """The bytes of a file in blocks of at most `size` bytes."""
        yield from blocks_of(self.open_file(name, os.O_RDONLY), size)

    def inner(self, name: str) -> OwnFolder:
        """A folder in this one, which need not be there."""
        return OwnFolder(self._root, *self._names[1:], name)

    def inner_folders(self) -> list[OwnFolder]:
        """The folders in this one."""
        try:
            with self.opened() as folder, os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except NO_FOLDER:
            return []
        return [self.inner(name) for name in names]

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(*NO_FOLDER), self.opened() as folder:
            os.unlink(name, dir_fd=folder)

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, in place of the file that has it, if there is one."""
        with self.opened() as folder:
            os.replace(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)

    def write(self, name: str, pieces: Iterable[bytes], *, sync: bool = False) -> None:
        """Write the pieces to a file, as a whole or not at all; with `sync`, they reach the disk before the rename.

        Temporary files in which nothing was written for `LEFT_S` are removed: their processes were killed. Several
        processes may write the file at the same time, as two collectors that close a batch do. Raises also what
        iterating over `pieces` raises.
        """
        with self.opened(make=True) as folder:
            for left in _names(folder, f"{name}-*.part"):
                with suppress(FileNotFoundError):  # another process has renamed or removed it meanwhile
                    if time.time() - os.stat(left, dir_fd=folder, follow_symlinks=False).st_mtime > LEFT_S:
                        os.unlink(left, dir_fd=folder)
            part = FileAt(f"{name}-{uuid.uuid4().hex}.part", folder)
            write_and_rename(pieces, part, FileAt(name, folder), sync=sync)


def _names(folder: int, pattern: str) -> list[str]:
    return sorted(fnmatch.filter(os.listdir(folder), pattern))
