"""The audio files under the output root."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from cloner.audio_bytes import encode_audio
from cloner.errors import NoRoom, OutputUnavailable, RecordUnavailable, SegmentFailed
from cloner.output.atomic_file import FileAt, open_part, write_and_rename
from cloner.output.own_folder import OwnFolder, open_file, opened_folder
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a full disk or an exhausted quota: they may pass."""

UNAVAILABLE = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})
"""Errors of a disk that fails, is remounted, or whose server is restarted: they may pass soon, or not at all."""

DISK_INTERVAL_S = 1.0
"""Seconds between two tries to use a disk that is full or fails."""


@dataclass(frozen=True)
class Written:
    """What a line of the record holds of a file, to identify it later."""

    size: int
    mtime_ns: int
    digest: str


def codes_part(part: str) -> str:
    """Name of the temporary file for codes of the process whose `OutputRoot.part` is `part`, in the same folder."""
    return f"{part}-codes"


class OutputRoot:
    """The folder that outputs are relative to."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._parts = self.root / HOUSEKEEPING
        self.part = f"part-{uuid.uuid4().hex}"
        """Name of this process's temporary file, in our own folder. Other processes remove it after a crash."""

    def write_audio(self, output: str, audio: NDArray[np.float32], sample_rate: int) -> Written:
        """Write mono samples ``[samples]`` in -1..1 as 16-bit audio, as a whole or not at all.

        Raises `SegmentFailed` (code "output") where the file cannot be written, `NoRoom` where the disk is full,
        `OutputUnavailable` where it fails for a while.
        """
        path = self.root / output
        try:
            # Encoded in memory: on a full disk, soundfile fails by an assertion of its own.
            data = encode_audio(audio, sample_rate, path.suffix[1:].upper())
            with self._opened(path.parent) as folder, self._opened(self._parts) as parts:
                status = write_and_rename([data], FileAt(self.part, parts), FileAt(path.name, folder))
        except (OSError, soundfile.SoundFileError) as error:
            message = f"{output} cannot be written under {self.root}: {error}"
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NoRoom(message) from error
            if isinstance(error, OSError) and error.errno in UNAVAILABLE:
                raise OutputUnavailable(message) from error
            raise SegmentFailed(message, code="output") from error
        return Written(status.st_size, status.st_mtime_ns, _digest(data))

    def write_codes(self, folder: OwnFolder, name: str, data: bytes) -> None:
        """Write the codes of a reference to a file of our own; its folder is made if needed. Raises `OSError`."""
        with folder.opened(make=True) as opened, OwnFolder(self.root).opened() as parts:
            write_and_rename([data], FileAt(codes_part(self.part), parts), FileAt(name, opened))

    def has_result(self, result: SegmentResult) -> bool:
        """Whether the file of a line of the record exists, with the same content.

        Its bytes are read only if its time differs, as after a copy: another batch may have written a file of the same
        size there, and crashed before it could record it. Raises `RecordUnavailable` where the disk fails for a while.
        """
        try:
            # Without `Path`, which takes longer than the call itself: a batch may have a million files.
            found = os.stat(f"{self.root}/{result.output}", follow_symlinks=False)  # noqa: PTH116
            if not stat.S_ISREG(found.st_mode) or found.st_size != result.size:
                return False
            if not result.digest or found.st_mtime_ns == result.mtime_ns:
                return True
            return _digest(self._read(result.output)) == result.digest
        except OSError as error:
            if error.errno in UNAVAILABLE:
                raise RecordUnavailable(f"{result.output} under {self.root} cannot be read: {error}") from error
            return False
        except SegmentFailed:
            return False

    def _read(self, output: str) -> bytes:
        """The bytes of an audio file, which may not be a link. Raises `OSError`, `SegmentFailed`."""
        path = self.root / output
        with self._opened(path.parent) as folder:
            file = open_file(folder, path.name, os.O_RDONLY)
        with os.fdopen(file, "rb") as opened:
            return opened.read()

    def has_room(self, size: int) -> bool:
        """Whether a file of `size` bytes fits on the disk. True, too, if it cannot be written for another reason."""
        try:
            with self._opened(self._parts) as parts, open_part(FileAt(self.part, parts)) as file:
                os.posix_fallocate(file, 0, max(size, 1))
        except OSError as error:
            return error.errno not in NO_ROOM
        finally:
            self.discard(self.part)
        return True

    def discard(self, part: str) -> None:
        """Remove the temporary file of a process, this one or a crashed one."""
        with suppress(OSError):
            OwnFolder(self.root).remove(part)

    def _opened(self, folder: Path) -> AbstractContextManager[int]:
        """A descriptor of the folder, which is made if needed. Raises `SegmentFailed` if links lead out of the root.

        Links are resolved first. Then each folder below the root is opened by its name within its parent, and may not
        be a link, so a link that is put there meanwhile is not followed.
        """
        real = Path(realpath(folder))
        if not real.is_relative_to(self.root):
            raise SegmentFailed(f"{folder} leads out of the output folder {self.root}", code="output")
        return opened_folder(self.root, real.relative_to(self.root).parts, make=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
