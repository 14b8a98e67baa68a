"""Writing a file as a whole or not at all: under a temporary name, which then replaces the final one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BUFFER_BYTES = 1024**2
"""Bytes that are gathered before they are written."""


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
    try:
        with open_part(part) as file:
            _write(file, pieces)
            if sync:
                os.fsync(file)
            status = os.fstat(file)
        os.replace(part.path, final.path, src_dir_fd=part.dir_fd, dst_dir_fd=final.dir_fd)
    except Exception:
        with suppress(OSError):
            os.unlink(part.path, dir_fd=part.dir_fd)
        raise
    return status


@contextmanager
def open_part(part: FileAt) -> Iterator[int]:
    """A descriptor of a new, empty temporary file. A link in its place is refused. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    file = os.open(part.path, flags, 0o666, dir_fd=part.dir_fd)
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, pieces: Iterable[bytes | memoryview]) -> None:
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        if len(buffer) >= BUFFER_BYTES:
            _write_all(file, buffer)
            buffer = bytearray()
    _write_all(file, buffer)


def _write_all(file: int, data: bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
