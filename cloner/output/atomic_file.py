"""Writing a file as a whole or not at all: under a temporary name, which then becomes the final one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK

BUFFER_BYTES = 1024**2
"""Bytes that are gathered before they are written."""

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV})
"""Errors of a file system that has no hard links, or not one more of this file."""


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a full disk or an exhausted quota: they may pass."""


@dataclass(frozen=True)
class FileAt:
    """A file's path; with a descriptor, it is relative to that folder."""

    path: str | Path
    dir_fd: int | None = None


def write_and_rename(
    pieces: Iterable[bytes | memoryview], part: FileAt, final: FileAt, *, sync: bool = False
) -> os.stat_result:
    """Write the pieces to `part`, and rename it to `final`; returns the file's status before that.

    Both are on one file system. After an error, `part` is removed. Raises `OSError`, and what iterating over `pieces`
    raises.
    """
    with _removed_on_error(part):
        status = _write_part(pieces, part, sync=sync)
        _replace(part, final)
    return status


def write_new(
    pieces: Iterable[bytes | memoryview], part: FileAt, final: FileAt, may_replace: Callable[[], bool]
) -> os.stat_result:
    """The same, but a file that is at `final` is replaced only if `may_replace` returns true, else `FileExistsError` is
    raised. A file that another process puts there at the same moment is found, too."""
    with _removed_on_error(part):
        status = _write_part(pieces, part, sync=False)
        rename_unless_taken(part, final, may_replace)
    return status


def rename_unless_taken(part: FileAt, final: FileAt, may_replace: Callable[[], bool]) -> None:
    """Rename `part`. Raises `FileExistsError` where there is a file at `final`, unless `may_replace` returns true."""
    try:
        rename_to_new(part, final)
    except FileExistsError:
        if not may_replace():
            raise
        _replace(part, final)


def rename_to_new(part: FileAt, final: FileAt) -> None:
    """Rename `part`. Raises `FileExistsError` where there is a file at `final`, and other `OSError`s."""
    try:
        os.link(part.path, final.path, src_dir_fd=part.dir_fd, dst_dir_fd=final.dir_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Without links: an empty file is made if there is none, and then replaced.
        os.close(os.open(final.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=final.dir_fd))
        try:
            _replace(part, final)
        except OSError:
            os.unlink(final.path, dir_fd=final.dir_fd)
            raise
    else:
        os.unlink(part.path, dir_fd=part.dir_fd)


def _replace(part: FileAt, final: FileAt) -> None:
    os.replace(part.path, final.path, src_dir_fd=part.dir_fd, dst_dir_fd=final.dir_fd)


@contextmanager
def _removed_on_error(part: FileAt) -> Iterator[None]:
    try:
        yield
    except Exception:
        with suppress(OSError):
            os.unlink(part.path, dir_fd=part.dir_fd)
        raise


def _write_part(pieces: Iterable[bytes | memoryview], part: FileAt, *, sync: bool) -> os.stat_result:
    with open_part(part) as file:
        _write(file, pieces)
        if sync:
            os.fsync(file)
        return os.fstat(file)


@contextmanager
def open_part(part: FileAt) -> Iterator[int]:
    """A descriptor of a new, empty temporary file. A link in its place is refused. Raises `OSError`.

    A file that a crash has left there is removed, not written over: it may have its final name already, too.
    """
    try:
        file = _create(part)
    except FileExistsError:
        if S_ISLNK(os.stat(part.path, dir_fd=part.dir_fd, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(part.path)) from None
        os.unlink(part.path, dir_fd=part.dir_fd)
        file = _create(part)
    try:
        yield file
    finally:
        os.close(file)


def _create(part: FileAt) -> int:
    return os.open(part.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=part.dir_fd)


def _write(file: int, pieces: Iterable[bytes | memoryview]) -> None:
    buffer = bytearray()
    for piece in pieces:
        if not buffer and len(piece) >= BUFFER_BYTES:
            _write_all(file, piece)  # audio is one piece, and may have a gigabyte
            continue
        buffer += piece
        if len(buffer) >= BUFFER_BYTES:
            _write_all(file, buffer)
            buffer = bytearray()
    _write_all(file, buffer)


def _write_all(file: int, data: bytes | bytearray | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
