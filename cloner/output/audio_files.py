"""Writing audio where it belongs: under the output root, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from cloner.errors import NoRoom, SegmentFailed
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk that is full, or of a user who has used up a share of it: they may pass."""


@dataclass(frozen=True)
class Written:
    """What a line of the record notes of a file, to know it again."""

    size: int
    mtime_ns: int
    digest: str


def codes_part(part: str) -> str:
    """Name of the codes that a process of that `OutputRoot.part` has not finished writing, in the same folder."""
    return f"{part}-codes"


class OutputRoot:
    """The folder that outputs are relative to."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._parts = self.root / HOUSEKEEPING
        self.part = f"part-{uuid.uuid4().hex}"
        """Name of what this process has not finished writing, in our own folder."""

    def write_audio(self, output: str, audio: NDArray[np.float32], sample_rate: int) -> Written:
        """Write mono samples ``[samples]`` in -1..1 as 16-bit audio.

        Raises `SegmentFailed` (code "output") where the file cannot be written, `NoRoom` where the disk is full. The
        file appears under its name only when it is whole: it is written beside, under a name that no output has, and
        renamed.
        """
        path = self.root / output
        try:
            # Encoded first: where a disk is full, libsndfile says so by an assertion of its own.
            data = io.BytesIO()
            soundfile.write(data, audio, sample_rate, format=path.suffix[1:].upper())
            with self._opened(path.parent) as folder, self._opened(self._parts) as parts:
                written = self._write(data.getbuffer(), parts)
                os.replace(self.part, path.name, src_dir_fd=parts, dst_dir_fd=folder)
        except (OSError, soundfile.LibsndfileError) as error:
            self.discard(self.part)
            message = f"{output} cannot be written under {self.root}: {error}"
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NoRoom(message) from error
            raise SegmentFailed(message, code="output") from error
        return written

    def has_result(self, result: SegmentResult) -> bool:
        """Whether the file that a line of the record tells of is there, and is that very file.

        Its bytes are read only where it was touched since, or copied: another batch may have written a file of the same
        size there, and died before it could note it.
        """
        path = self.root / result.output
        try:
            found = path.stat()
            if found.st_size != result.size:
                return False
            untouched = not result.digest or found.st_mtime_ns == result.mtime_ns
            return untouched or _digest(path.read_bytes()) == result.digest
        except OSError:
            return False

    def has_room(self, size: int) -> bool:
        """Whether a file of so many bytes could be written now. True, too, where something else is in the way."""
        try:
            with self._opened(self._parts) as parts, self._new_part(parts) as file:
                os.posix_fallocate(file, 0, max(size, 1))
        except OSError as error:
            return error.errno not in NO_ROOM
        finally:
            self.discard(self.part)
        return True

    def discard(self, part: str) -> None:
        """Remove what a process has not finished writing, this one or one that died."""
        with suppress(OSError):
            (self._parts / part).unlink()

    def _write(self, data: memoryview, parts: int) -> Written:
        """Write our part into the open folder."""
        left = data
        with self._new_part(parts) as file:
            while left:
                left = left[os.write(file, left) :]
            written = os.fstat(file)
        return Written(written.st_size, written.st_mtime_ns, _digest(data))

    @contextmanager
    def _new_part(self, parts: int) -> Iterator[int]:
        file = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666, dir_fd=parts)
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _opened(self, folder: Path) -> Iterator[int]:
        """A descriptor of the folder, made if needed. Where links lead out of the root, it is refused.

        Links are followed once, before. From the root on, each folder is then opened by its name within the one
        before and may not be a link, so one that is put there meanwhile leads nowhere.
        """
        real = Path(realpath(folder))
        if not real.is_relative_to(self.root):
            raise SegmentFailed(f"{folder} leads out of the output folder {self.root}", code="output")
        self.root.mkdir(parents=True, exist_ok=True)
        opened = os.open(self.root, os.O_DIRECTORY)
        try:
            for name in real.relative_to(self.root).parts:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=opened)
                inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened)
                os.close(opened)
                opened = inner
            yield opened
        finally:
            os.close(opened)


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
